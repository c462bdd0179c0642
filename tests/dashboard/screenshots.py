"""Pictures of every page, of a demo with some history: ``make screenshots``, into build/screenshots."""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from dashboard.gateway import Gateway, GatewayError
from tests.dashboard.conftest import FLAGS, Demo, ended, free, started, told

MODEL, OTHER = "llama3.2:1b", "smollm2:135m"
PAGES = {
    "chat": "stChatMessage",
    "talk": "stChatMessage",
    "sessions": "stMenuButton",
    "metrics": "stPlotlyChart",
    "usage": "stPlotlyChart",
    "fleet": "stMetric",
}
"""And what each has once it is there."""
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "russian": {"viewport": WIDE, "color_scheme": "light", "locale": "ru-RU"},
    "mobile": {"viewport": PHONE, "color_scheme": "light", "is_mobile": True, "has_touch": True},
}
QUESTIONS = ("Why is the sky blue?", "Is cheese a dessert?", "What is a lease?", "Write a haiku about queues.")


def history(gateway: Gateway) -> tuple[str, str]:
    """Chats, a conversation of two models, requests of all kinds, one host drained; the chat and the conversation to show."""

    def asked(number: int) -> None:
        body = {"model": (MODEL, OTHER)[number % 2], "prompt": QUESTIONS[number % 4], "stream": False}
        gateway.post("/api/generate", body | {"options": {"num_predict": 5 + number * 3}})

    with ThreadPoolExecutor(4) as several:
        list(several.map(asked, range(16)))
    with contextlib.suppress(GatewayError):
        gateway.post("/api/generate", {"model": "nobody-has-this", "prompt": "?"})
    for title in QUESTIONS:
        chat = gateway.post("/api/sessions", {"title": title, "model": MODEL})["id"]
        gateway.post(f"/api/sessions/{chat}/chat", {"message": {"content": title}, "stream": False})
    people = [{"model": model, "name": name} for model, name in ((MODEL, "Ann"), (OTHER, "Bob"))]
    wish = {"participants": people, "topic": "Is cheese a dessert?", "turns": 4, "title": "Cheese", "detach": True}
    talk = gateway.post("/api/chat/multi-model", wish)["session"]
    free(gateway, talk)
    gateway.post("/api/hosts/sim3/drain")
    return chat, talk


def settled(page: Page, what: str) -> None:
    """All is painted, and the script has ended."""
    expect(page.get_by_test_id(what).first).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    page.wait_for_load_state("networkidle")


def taken(browser: Browser, site: str, shown: tuple[str, str], folder: Path) -> None:
    """One picture of each page in each look."""
    chat, talk = shown
    kept = f'localStorage.setItem("corral", JSON.stringify({{session: "{chat}", talk: "{talk}"}}))'
    for look, values in LOOKS.items():
        context = browser.new_context(base_url=site, reduced_motion="reduce", **values)
        context.set_default_timeout(60_000)
        context.add_init_script(f'if (!localStorage.getItem("corral")) {kept}')
        page = context.new_page()
        for name, what in PAGES.items():
            page.goto(f"/{name}")
            settled(page, what)
            if name == "metrics":
                span = page.get_by_test_id("stCaptionContainer").first
                before = span.inner_text()
                page.get_by_role("radio", name=re.compile("^15")).click()  # the history is some minutes long
                expect(span).not_to_have_text(before)
                settled(page, what)
            page.screenshot(path=folder / f"{name}-{look}.png")
            print(folder / f"{name}-{look}.png", flush=True)  # noqa: T201
        context.close()


def main() -> None:
    """Start it all, take the pictures, end it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/screenshots"))
    folder: Path = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("screenshots: there is no browser: apt-get install chromium")
    with tempfile.TemporaryDirectory() as kept:
        demo = Demo(Path(kept))
        app: subprocess.Popen[str] | None = None
        gateway = Gateway(demo.url)
        try:
            app = started(Path(kept), "dashboard", "--gateway", demo.url, "--listen", "127.0.0.1:0")
            site = told(app, r"(http://127\.0\.0\.1:\d+)")
            shown = history(gateway)
            expect.set_options(timeout=60_000)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
                taken(browser, site, shown, folder)
                browser.close()
        finally:
            gateway.close()
            if app is not None:
                ended(app)
            demo.stop()


if __name__ == "__main__":
    main()
