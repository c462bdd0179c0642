"""Conversations in a real browser: through the modes, with Stop, going on and joining in; what a reload finds again."""

import json
import re
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page

from dashboard.gateway import Gateway
from tests.dashboard.conftest import free, opened
from tests.dashboard.patience import expect

MODEL = "llama3.2:1b"
EXPLAINED = {
    "Compare": "All answer at once, and none sees the others.",
    "Panel": "All at once, and again when each has seen what the others said.",
    "Judge": "All answer at once; then the judge decides.",
}


def begun(gateway: Gateway, title: str) -> str:
    """A dialogue of two short turns, begun elsewhere; its session."""
    people = [{"model": MODEL, "name": name, "options": {"num_predict": 8}} for name in ("Ann", "Bob")]
    wish = {"participants": people, "topic": "Is cheese a dessert?", "turns": 2, "detach": True, "title": title}
    return str(gateway.post("/api/chat/multi-model", wish)["session"])


def said(page: Page, text: str) -> None:
    """Type and send."""
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")


def button(page: Page | Locator, label: str) -> Locator:
    """By its label, or its icon's name."""
    return page.get_by_role("button", name=label, exact=False).first


def idle(page: Page) -> None:
    """Nothing is on its way to the page."""
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()


def conversation(gateway: Gateway) -> dict[str, Any]:
    """The one that was begun last."""
    row: dict[str, Any] = gateway.get("/api/sessions", limit=1, kind="conversation")["sessions"][0]
    return row


def test_through_the_modes(context: BrowserContext, gateway: Gateway) -> None:
    """A dialogue that is joined, stopped, and goes on; then the other modes with participants who say little; figures and export."""
    brief = begun(gateway, title="Brief")
    page = opened(context, "/talk")
    for place, name in enumerate(("Ann", "Bob")):
        page.get_by_label("Name", exact=True).nth(place).fill(name)
        page.keyboard.press("Tab")
    page.get_by_role("radiogroup", name="Colour").first.get_by_role("radio").nth(3).click()
    idle(page)
    page.get_by_role("spinbutton", name="Turns").fill("100")
    page.keyboard.press("Tab")
    idle(page)
    expect(page.get_by_role("spinbutton", name="Turns")).to_have_value("100")
    said(page, "Is cheese a dessert?")
    expect(button(page, "Stop")).to_be_visible()
    expect(page.get_by_test_id("stChatMessage").filter(has_text="Bob").first).to_be_visible()
    said(page, "And wine?")
    wine = page.get_by_test_id("stChatMessage").filter(has_text="And wine?").first
    expect(wine).to_be_visible()
    page.reload()
    expect(wine).to_be_visible()
    button(page, "Stop").click()
    expect(button(page, "Continue")).to_be_visible()
    expect(page.get_by_text("Stopped.").first).to_be_visible()
    session = conversation(gateway)
    assert [one["color"] for one in session["settings"]["participants"]] == ["violet", "orange"]
    count = len(free(gateway, session["id"]))
    page.get_by_role("spinbutton", name="Turns").fill("1")
    page.keyboard.press("Tab")
    button(page, "Continue").click()
    expect(page.get_by_test_id("stChatMessage")).to_have_count(count + 1)
    assert len(free(gateway, session["id"])) == count + 1
    button(page, "Brief").click()
    expect(page.get_by_test_id("stChatMessage")).to_have_count(len(free(gateway, brief)))
    for mode, speakers in (("Compare", 2), ("Panel", 2), ("Judge", 3)):
        _mode(page, mode)
        expect(page.get_by_test_id("stChatMessage").filter(has_text="token")).to_have_count(speakers)
        chats = page.get_by_test_id("stChatMessage").filter(has_text=re.compile("^(Ann|Bob)"))
        left, right = (chats.nth(place).bounding_box() for place in (0, 1))
        assert left is not None
        assert right is not None
        assert left["y"] == right["y"]
        assert left["x"] < right["x"]
    page.get_by_role("tab", name="Figures").click()
    expect(page.get_by_test_id("stPlotlyChart")).to_be_visible()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    button(page.get_by_test_id("stBottom"), "download").click()
    texts = []
    for label in ("As Markdown", "As JSON"):
        with page.expect_download() as download:
            button(page, label).click()
        texts.append(download.value.path().read_text(encoding="utf-8"))
    assert [line.split(" · ")[0] for line in texts[0].splitlines() if line.startswith("## ")][1:3] == [
        "## Ann",
        "## Bob",
    ]
    assert [row["name"] for row in json.loads(texts[1])["messages"]][:3] == [None, "Ann", "Bob"]


def _mode(page: Page, mode: str) -> None:
    """A new conversation of the same participants, in this mode, to its end."""
    page.get_by_test_id("stSidebar").get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("heading", name="Let models talk")).to_be_visible()
    page.get_by_role("radio", name=mode).click()
    if mode == "Panel":
        page.get_by_role("spinbutton", name="Turns").fill("2")
        page.keyboard.press("Tab")
    expect(page.get_by_text(EXPLAINED[mode])).to_be_visible()
    idle(page)
    said(page, "Is cheese a dessert?")
    expect(button(page.get_by_test_id("stBottom"), "download")).to_be_visible()


def test_presets_outlast_a_reload(context: BrowserContext) -> None:
    """They are in every tab, and one that was open before does not bring back what another one deleted."""
    page = opened(context, "/talk")
    page.get_by_label("Name", exact=True).first.fill("Ann")  # at once: no run of the page is still to come
    page.keyboard.press("Tab")
    button(page, "Presets").click()
    body = page.get_by_test_id("stPopoverBody")
    body.get_by_label("Name of the preset").fill("Mine")
    button(body, "Save").click()
    expect(button(body, "Load")).to_be_visible()
    page.wait_for_function("name => name in JSON.parse(localStorage.getItem('corral_presets') || '{}')", arg="Mine")
    second = opened(context, "/talk")
    button(second, "Presets").click()
    body = second.get_by_test_id("stPopoverBody")
    button(body, "Load").click()
    expect(second.get_by_label("Name", exact=True).first).to_have_value("Ann")
    button(body, "Delete").click()
    expect(button(body, "Load")).to_have_count(0)
    second.wait_for_function("localStorage.getItem('corral_presets') === '{}'")
    page.reload()
    button(page, "Presets").click()
    expect(button(page.get_by_test_id("stPopoverBody"), "Save")).to_be_visible()
    expect(button(page.get_by_test_id("stPopoverBody"), "Load")).to_have_count(0)
