"""How long it takes to come to a page: by a click on its name, and by a reload of a chat."""

from collections.abc import Iterator

from playwright.sync_api import Page

from bench.dashboard.found import Found
from bench.dashboard.stage import MODEL, Stage, idle

SWITCH_MS, RELOAD_MS = 1000.0, 1500.0
PAGES = {
    "Model talk": "[...document.querySelectorAll('h1,h2')].some(one => one.textContent.includes('Let models talk'))",
    "Sessions": "document.querySelectorAll('[data-testid=stMenuButton]').length > 5",
    "Metrics": "document.querySelectorAll('[data-testid=stMetric]').length > 5 && document.querySelector('.main-svg')",
    "Fleet": "document.querySelectorAll('[data-testid=stMetric]').length === 5 && document.body.innerText.includes('Learned speeds')",
    "Chat": "document.querySelectorAll('[data-testid=stChatMessage]').length > 5",
}
"""The pages by the names of their links, and when the content of each is there."""
TURNS = 8
SESSIONS = 10_000
READ_MS = 5000.0


def measure(stage: Stage, rounds: int) -> Iterator[Found]:
    """A fleet with some history, very many sessions, a chat of sixteen messages."""
    stage.gateway.each("POST", ["/api/sessions"] * SESSIONS, {"title": "One of many", "model": MODEL})
    session = stage.session("fast", 50)
    for _ in range(TURNS):
        stage.gateway.post(f"/api/sessions/{session}/chat", {"message": {"content": "And?"}, "stream": False})
    with stage.page(session) as page:
        yield Found("first click → Metrics, at once", [_switched(page, "Metrics")], "ms", "most", None)
    with stage.page(session) as page:
        page.wait_for_timeout(READ_MS)
        took: dict[str, list[float]] = {name: [] for name in PAGES}
        for _ in range(rounds):
            for name in PAGES:
                took[name].append(_switched(page, name))
        yield Found(
            "first click → page, after five seconds in the chat",
            [values[0] for values in took.values()],
            "ms",
            "most",
            SWITCH_MS,
        )
        for name, values in took.items():
            yield Found(f"click → page {name}", values[1:], "ms", "p95", SWITCH_MS)
        _switched(page, "Sessions")
        older = [_older(page, number) for number in range(2, rounds + 2)]
        yield Found(f"click → the next page of {SESSIONS} sessions", older, "ms", "p95", SWITCH_MS)
        _switched(page, "Chat")
        yield Found("reload → chat with 16 messages", [_reloaded(page) for _ in range(rounds)], "ms", "p95", RELOAD_MS)


def _switched(page: Page, name: str) -> float:
    page.get_by_role("link", name=name, exact=True).click()
    there = page.wait_for_function(f"() => ({PAGES[name]}) && performance.timeOrigin + performance.now()")
    took = float(there.json_value()) - float(page.evaluate("clicked"))
    idle(page)
    return took


def _older(page: Page, number: int) -> float:
    page.get_by_role("button", name="Older", exact=True).click()
    there = page.wait_for_function(
        f"() => document.body.innerText.includes('Page {number}') && performance.timeOrigin + performance.now()"
    )
    took = float(there.json_value()) - float(page.evaluate("clicked"))
    idle(page)
    return took


def _reloaded(page: Page) -> float:
    page.reload(wait_until="commit")
    usable = f"!document.querySelector('[data-testid=stChatInputTextArea]')?.disabled && {PAGES['Chat']}"
    there = page.wait_for_function(f"() => document.querySelector('textarea') && {usable} && performance.now()")
    idle(page)
    return float(there.json_value())
