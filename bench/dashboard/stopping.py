"""From the click on Stop in a browser to the moment at which the host knows, in every phase of an answer.

Queued there is no host to free: then to the moment at which the gateway has forgotten the request, as asked every few milliseconds.
"""

import random
import time
from collections.abc import Iterator
from functools import partial

from playwright.sync_api import Page

from bench.dashboard.found import Found
from bench.dashboard.stage import Stage, idle, say, until
from simulator.ledger import Entry

LIMIT_MS = 300.0
PHASES = {"queued": "busy", "loading": "loading", "prefill": "reading", "generating": "streaming"}
"""Of an entry in a host's ledger; and the host that is always found so."""
TOLD = {"queued": "queued", "loading": "loading", "prefill": "before the first token", "generating": "streaming"}
TOKENS = 4000


def measure(stage: Stage, rounds: int) -> Iterator[Found]:
    """A row for each phase. Stop comes at any moment between two frames or two slices of the painter."""
    rng = random.Random(1)
    for phase, host in PHASES.items():
        holding = ""
        if phase == "queued":
            holding = stage.session(host, 100_000)
            stage.gateway.post(f"/api/sessions/{holding}/chat", {"message": {"content": "Hold."}, "detach": True})
            until(partial(getattr, stage.host(host).ledger, "generating"))
        session = stage.session(host, TOKENS)
        with stage.page(session) as page:
            took = [_stopped(stage, page, session, phase, rng.uniform(0.1, 1.7)) for _ in range(rounds)]
        if holding:
            stage.gateway.post(f"/api/sessions/{holding}/cancel")
        yield Found(f"Stop → host freed, {TOLD[phase]}", took, "ms", "p95", LIMIT_MS)


def _stopped(stage: Stage, page: Page, session: str, phase: str, after_seconds: float) -> float:
    """Milliseconds."""
    say(page, "Tell me everything.")
    if phase == "queued":
        until(lambda: any(row["phase"] == "queued" for row in _running(stage, session)))
    else:
        entry = until(lambda: _entry(stage, phase))
        until(lambda: entry.phase == phase)
    time.sleep(after_seconds)
    page.get_by_role("button", name="Stop").click()
    if phase == "queued":
        until(lambda: not _running(stage, session))
        freed = time.time()
    else:
        until(lambda: entry.ended)
        assert (entry.phase, entry.how) == (phase, "disconnected"), entry
        freed = entry.ended + time.time() - time.monotonic()
    clicked: float = page.evaluate("clicked")
    page.get_by_role("button", name="Stop").wait_for(state="detached")
    idle(page)
    return freed * 1000 - clicked


def _running(stage: Stage, session: str) -> list[dict[str, object]]:
    return [row for row in stage.gateway.get("/api/generations")["generations"] if row["session"] == session]


def _entry(stage: Stage, phase: str) -> Entry | None:
    """What runs at the host of that phase."""
    return next((one for one in list(stage.host(PHASES[phase]).ledger.entries) if one.ended is None), None)
