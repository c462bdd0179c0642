"""The app in a real browser: what is painted while an answer comes, how it is stopped, and what a tab finds again."""

import re

import pytest
from playwright.sync_api import BrowserContext, Page
from streamlit.proto.BackMsg_pb2 import BackMsg

from dashboard.gateway import Gateway
from tests.dashboard.conftest import opened
from tests.dashboard.patience import expect


def say(page: Page, text: str) -> None:
    """Type and send."""
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page, count: int = 2) -> None:
    """All messages are there, with what the last one cost."""
    expect(page.get_by_test_id("stChatMessage")).to_have_count(count)
    expect(page.get_by_text(re.compile("first token")).last).to_be_visible()


def long_answers(page: Page) -> None:
    """From now on."""
    page.get_by_role("button", name="Options").click()
    page.get_by_label("num_predict").fill("4000")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")


def test_a_chat(context: BrowserContext) -> None:
    """Under its page's own name too: the answer has facts, can be made again, and both can be looked at."""
    page = opened(context, "/chat")
    expect(page.get_by_role("dialog")).to_have_count(0)  # Streamlit's own, where it knows no such page
    say(page, "Why is the sky blue?")
    answered(page)
    first = page.get_by_test_id("stChatMessage").last.inner_text()
    page.get_by_role("button", name="Why this host?").click()
    expect(page.get_by_text(re.compile("predicted, .* measured"))).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Again").click()
    expect(page.get_by_text("2/2")).to_be_visible()
    answered(page)
    page.get_by_role("button", name="◀").click()
    expect(page.get_by_text("1/2")).to_be_visible()
    assert page.get_by_test_id("stChatMessage").last.inner_text().splitlines()[0] == first.splitlines()[0]


def test_a_page_is_run_no_more_than_it_must(context: BrowserContext) -> None:
    """Once to ask what the browser remembers, once with it: another run could take away what is being typed."""
    page = context.new_page()
    asked: list[BackMsg] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda sent: asked.append(BackMsg.FromString(sent))))
    page.goto("/")
    page.get_by_test_id("stSidebar").get_by_text("Русский").click()
    expect(page.get_by_role("button", name="Новый чат")).to_be_visible()
    assert len(asked) == 3


def test_code_of_charts_is_fetched_ahead(context: BrowserContext) -> None:
    """On the first page, so that the first look at Metrics need not wait for it."""
    page = context.new_page()
    with page.expect_response(re.compile(r"/static/js/PlotlyChart\..*\.js$")) as fetched:
        page.goto("/")
    assert fetched.value.ok
    assert page.get_by_test_id("stChatInputTextArea").is_visible()


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop(context: BrowserContext, gateway: Gateway, how: str) -> None:
    """The host is free at once, and what there was is kept."""
    page = opened(context)
    long_answers(page)
    say(page, "Tell me everything.")
    expect(page.get_by_text(re.compile("tokens/s"))).to_be_visible()
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.get_by_test_id("stChatInputTextArea").press("Escape")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    assert gateway.get("/api/generations")["generations"] == []


def test_reload_and_second_tab(context: BrowserContext, gateway: Gateway) -> None:
    """The same chat and the same running answer; a second tab can stop it."""
    page = opened(context)
    long_answers(page)
    say(page, "Tell me everything.")
    expect(page.get_by_text(re.compile("tokens/s"))).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile("tokens/s"))).to_be_visible()
    expect(page.get_by_text("Tell me everything.").first).to_be_visible()
    (running,) = gateway.get("/api/generations")["generations"]
    second = opened(context)
    expect(second.get_by_text(re.compile("tokens/s"))).to_be_visible()
    second.get_by_role("button", name="Stop").click()
    expect(second.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    assert gateway.get("/api/generations")["generations"] == []
    assert running["session"] is not None


def test_a_file_that_cannot_go(context: BrowserContext, gateway: Gateway) -> None:
    """Nothing is sent while it is there, by Enter or by the button, and that is said; once it is taken out the question goes."""
    page = opened(context)
    before = len(gateway.get("/api/sessions", limit=200)["sessions"])
    chosen = page.get_by_test_id("stChatInput").locator("input[type=file]")
    chosen.set_input_files({"name": "large.png", "mimeType": "image/png", "buffer": b"0" * (21 * 2**20)})
    expect(page.get_by_test_id("stFileChip")).to_have_attribute("aria-invalid", "true")
    say(page, "What is it?")
    note = page.get_by_role("alert").filter(has_text="Not sent")
    expect(note).to_be_visible()
    page.get_by_test_id("stChatInputSubmitButton").click()
    expect(page.get_by_test_id("stChatInputTextArea")).to_have_value("What is it?")
    assert len(gateway.get("/api/sessions", limit=200)["sessions"]) == before
    page.get_by_role("button", name="Remove large.png").click()
    page.get_by_test_id("stChatInputTextArea").press("Enter")
    answered(page)
    expect(note).to_have_count(0)


def test_edit(context: BrowserContext) -> None:
    """A question that is changed begins a branch."""
    page = opened(context)
    say(page, "Why is the sky blue?")
    answered(page)
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_test_id("stPopoverBody").get_by_role("textbox").fill("Why is it red?")
    page.get_by_test_id("stPopoverBody").get_by_role("button", name="Send").click()
    expect(page.get_by_text("2/2")).to_be_visible()
    expect(page.get_by_test_id("stChatMessage").first).to_contain_text("Why is it red?")
    answered(page)
