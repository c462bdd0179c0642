"""The app in a real browser: what is painted while an answer comes, how it is stopped, and what a tab finds again."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from dashboard.gateway import Gateway
from tests.components import missing
from tests.dashboard.conftest import ROOT, Demo

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def app(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app as a process; its address."""
    command = [sys.executable, "-m", "dashboard", "--gateway", demo.url, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path_factory.mktemp("app"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    found = next(found for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    yield found[0]
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, app: str) -> Iterator[BrowserContext]:
    """A browser that was never here; it asks nobody but the app."""
    context = chromium.new_context(base_url=app, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    foreign: list[str] = []
    context.on(
        "request",
        lambda request: None if request.url.startswith((app, "data:", "blob:")) else foreign.append(request.url),
    )
    yield context
    context.close()
    assert foreign == []


@pytest.fixture
def gateway(demo: Demo) -> Iterator[Gateway]:
    """A caller of its own."""
    one = Gateway(demo.url)
    yield one
    one.close()


def opened(context: BrowserContext, path: str = "/") -> Page:
    """A page that can be used."""
    page = context.new_page()
    page.goto(path)
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_visible(timeout=PATIENCE_MS)
    return page


def say(page: Page, text: str) -> None:
    """Type and send."""
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page, count: int = 2) -> None:
    """All messages are there, with what the last one cost."""
    expect(page.get_by_test_id("stChatMessage")).to_have_count(count, timeout=PATIENCE_MS)
    expect(page.get_by_text(re.compile("first token")).last).to_be_visible(timeout=PATIENCE_MS)


def long_answers(page: Page) -> None:
    """From now on."""
    page.get_by_role("button", name="Options").click()
    page.get_by_label("num_predict").fill("1000")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")


def test_a_chat(context: BrowserContext) -> None:
    """The answer grows; then it has facts, can be made again, and both can be looked at."""
    page = opened(context)
    say(page, "Why is the sky blue?")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    answered(page)
    first = page.get_by_test_id("stChatMessage").last.inner_text()
    page.get_by_role("button", name="Again").click()
    expect(page.get_by_text("2/2")).to_be_visible()
    answered(page)
    page.get_by_role("button", name="◀").click()
    expect(page.get_by_text("1/2")).to_be_visible()
    assert page.get_by_test_id("stChatMessage").last.inner_text().splitlines()[0] == first.splitlines()[0]


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


def test_in_russian(context: BrowserContext) -> None:
    """The language is chosen once, and is there at once after a reload."""
    page = opened(context)
    page.get_by_test_id("stSidebar").get_by_text("Русский").click()
    expect(page.get_by_role("button", name="Новый чат")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Новый чат")).to_be_visible()
    expect(page.get_by_text("Что вы хотите узнать?")).to_be_visible()


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
