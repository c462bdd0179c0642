"""What it costs to paint answers while they come: one that is long and fast in a browser, and many at once."""

import time
from collections.abc import Iterator

from bench.dashboard import viewers
from bench.dashboard.found import Found
from bench.dashboard.stage import Stage, say, until

TOKENS = 5000
BLOCKED_MS = 100.0
SHARE = 10.0
SESSIONS = 30
SESSIONS_SHARE = 60.0
SECONDS = 10.0


def long_answer(stage: Stage) -> Iterator[Found]:
    """5,000 tokens at 200 a second: the browser's long tasks while they come, and the app's processor time."""
    session = stage.session("fast", TOKENS)
    with stage.page(session) as page:
        say(page, "Tell me everything.")
        ledger = stage.host("fast").ledger
        until(lambda: ledger.generating)
        page.evaluate("blocked.length = 0")
        cpu, began = stage.app.cpu_ns(), time.monotonic()
        until(lambda: not ledger.generating, 0.05)
        share = (stage.app.cpu_ns() - cpu) / (time.monotonic() - began) / 1e7
        tasks: list[float] = page.evaluate("blocked")
        page.get_by_role("button", name="Stop").wait_for(state="detached")
        said = stage.gateway.get(f"/api/sessions/{session}/messages")["messages"][-1]
        assert said["usage"]["output_tokens"] == TOKENS, said["usage"]
    yield Found("long tasks of the browser, 5,000 tokens at 200/s", tasks or [0.0], "ms", "most", BLOCKED_MS)
    yield Found("the app's share of a core meanwhile", [share], "%", "most", SHARE)


def many(stage: Stage, rounds: int) -> Iterator[Found]:
    """30 browsers' worth of answers at 60 tokens a second: the app's processor time, and how often each is painted."""
    sessions = [stage.session("many", 100_000) for _ in range(SESSIONS)]
    for session in sessions:
        stage.gateway.post(f"/api/sessions/{session}/chat", {"message": {"content": "Go on."}, "detach": True})
    until(lambda: stage.host("many").ledger.generating == SESSIONS)
    shares: list[float] = []
    painted: list[float] = []
    with viewers.watching(stage, sessions) as all_of_them:
        until(lambda: all(one.painted > 20 for one in all_of_them), 0.05)
        for _ in range(rounds):
            before = [one.painted for one in all_of_them]
            cpu, began = stage.app.cpu_ns(), time.monotonic()
            time.sleep(SECONDS)
            took = time.monotonic() - began
            shares.append((stage.app.cpu_ns() - cpu) / took / 1e7)
            painted += [(one.painted - count) / took for one, count in zip(all_of_them, before, strict=True)]
    for session in sessions:
        stage.gateway.post(f"/api/sessions/{session}/cancel")
    yield Found(f"the app's share of a core, {SESSIONS} sessions at 60/s", shares, "%", "median", SESSIONS_SHARE)
    yield Found("what each of them is sent, messages a second", painted, "", "median", None)
