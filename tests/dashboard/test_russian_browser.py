"""The app in Russian, in a real browser: chosen once, it is in every page's words, and what is done there can be done."""

import json
import re
from pathlib import Path

from playwright.sync_api import BrowserContext, Page

from dashboard import i18n
from dashboard.gateway import Gateway
from tests.dashboard.conftest import free, opened
from tests.dashboard.patience import expect

MODEL = "llama3.2:1b"
WORDS = json.loads((Path(i18n.__file__).parent / "locales" / "ru.json").read_text(encoding="utf-8"))


def through(page: Page, title: str) -> None:
    """To another page, by the bar above all of them."""
    page.get_by_role("link", name=WORDS[title], exact=True).click()


def test_through_the_pages(context: BrowserContext, gateway: Gateway) -> None:
    """The language is there at once after a reload; then a conversation, a session deleted and brought back, figures, a host drained."""
    people = [{"model": MODEL, "name": name, "options": {"num_predict": 8}} for name in ("Ann", "Bob")]
    wish = {
        "participants": people,
        "topic": "Is cheese a dessert?",
        "mode": "compare",
        "detach": True,
        "title": "Gouda",
    }
    free(gateway, gateway.post("/api/chat/multi-model", wish)["session"])
    page = opened(context)
    page.get_by_test_id("stSidebar").get_by_text("Русский").click()
    expect(page.get_by_role("button", name=WORDS["New chat"])).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name=WORDS["New chat"])).to_be_visible()
    expect(page.get_by_text(WORDS["What would you like to know?"])).to_be_visible()

    page.goto("/nowhere")
    expect(page.get_by_text("Страницы nowhere здесь нет.")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)

    through(page, "Model talk")
    expect(page.get_by_role("heading", name=WORDS["Let models talk"])).to_be_visible()
    page.get_by_role("button", name="Gouda").first.click()
    expect(page.get_by_test_id("stChatMessage").filter(has_text="токен")).to_have_count(2)
    page.get_by_role("tab", name=WORDS["Figures"]).click()
    expect(page.get_by_test_id("stPlotlyChart")).to_be_visible()

    through(page, "Sessions")
    expect(page.get_by_role("heading", name=WORDS["Sessions"])).to_be_visible()
    page.get_by_role("searchbox").fill("gouda")
    expect(page.get_by_test_id("stMenuButton")).to_have_count(1)
    page.get_by_test_id("stCheckbox").last.locator("label").click()
    bottom = page.get_by_test_id("stBottom")
    bottom.get_by_role("button", name=WORDS["Delete"]).click()
    bottom.get_by_role("button", name=WORDS["Undo"]).click()
    expect(page.get_by_test_id("stMenuButton")).to_have_count(1)

    through(page, "Metrics")
    expect(page.get_by_text(WORDS["Requests by outcome"])).to_be_visible()
    expect(page.get_by_test_id("stPlotlyChart").first).to_be_visible()

    through(page, "Fleet")
    page.get_by_role("button", name=WORDS["Drain"], exact=True).nth(1).click()
    page.get_by_role("dialog").get_by_role("button", name=WORDS["Drain"]).click()
    expect(page.get_by_text(WORDS["draining"], exact=True)).to_be_visible()
    gateway.post("/api/hosts/sim2/resume")
    expect(page.get_by_text(WORDS["draining"], exact=True)).to_have_count(0)
    page.get_by_role("button", name=WORDS["Explain"]).click()
    expect(page.get_by_text(re.compile("^Запрос ушёл бы на"))).to_be_visible()
