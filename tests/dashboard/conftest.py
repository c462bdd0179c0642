"""The app before a real gateway with simulated hosts: in Streamlit's own tester, and in a real browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
from streamlit.testing.v1 import AppTest

from dashboard import browser, state
from dashboard.gateway import URL, Gateway
from tests.components import missing
from tests.dashboard.patience import PATIENCE_MS, expect

ROOT = Path(__file__).parent.parent.parent
APP = ROOT / "dashboard" / "app.py"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--process-per-site",
]


class Demo:
    """Three simulated hosts whose models say little unless they are told to, and ``corral serve`` before them; processes of their own, for an app's
    script blocks the thread that runs it. ``url``: the gateway, which can go away and come back there. ``more``: of its configuration; ``database``: another one than a file of its own.
    """

    def __init__(self, folder: Path, more: str = "", database: str = "") -> None:
        self._folder = folder
        simulate = ["simulator", "--hosts", "3", "--base-port", "0", "--num-predict", "30", "--json"]
        self._simulator = started(folder, *simulate, "--load-seconds-per-gb", "0.2")
        assert self._simulator.stdout is not None
        rows = [json.loads(self._simulator.stdout.readline()) for _ in range(3)]
        hosts = [
            f'[[hosts]]\nname = "{row["name"]}"\nurl = "{row["url"]}"\nvram_bytes = {row["vram_bytes"]}' for row in rows
        ]
        kept = f'[database]\nurl = "{database or f"sqlite:///{folder}/corral.db"}"'
        (folder / "corral.toml").write_text("\n".join([more, kept, *hosts]), encoding="utf-8")
        self.url = "http://127.0.0.1:0"
        self.come()

    def come(self) -> None:
        """Start the gateway, with what it kept."""
        self._gateway = started(self._folder, "gateway", "serve", "--listen", self.url.removeprefix("http://"))
        self.url = told(self._gateway, r"listens on (http://\S+) for")

    def go(self) -> None:
        """End the gateway."""
        ended(self._gateway)

    def die(self) -> None:
        """End the gateway in the middle of what it does."""
        self._gateway.kill()
        self._gateway.communicate()

    def stop(self) -> None:
        """End all of it."""
        self.go()
        ended(self._simulator)


def started(folder: Path, *module: str, **settings: str) -> subprocess.Popen[str]:
    """One of our programs, with these settings of the environment and nothing of the tester's own."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    environ = usual | settings | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", *module]
    return subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def told(process: subprocess.Popen[str], pattern: str) -> str:
    """What it says at its start where this is found."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"{process.args} did not start")


def ended(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C would."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A gateway with three simulated hosts and a database, for all tests here: each leaves it with nothing running and all hosts taking requests."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo
    demo.stop()


@pytest.fixture
def gateway(demo: Demo) -> Iterator[Gateway]:
    """A caller of its own."""
    one = Gateway(demo.url)
    yield one
    one.close()


@pytest.fixture
def app(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """The app as a browser would see it, which remembers what it is told. A page goes by the name of its file, as in its address."""
    monkeypatch.setenv(URL, demo.url)
    st.cache_resource.clear()
    st.cache_data.clear()
    kept: dict[str, Any] = {}

    def remembered() -> dict[str, Any]:
        kept.update(st.session_state.get("_kept", {}))
        return kept

    monkeypatch.setattr(browser, "remembered", remembered)
    monkeypatch.setattr(browser, "copy_button", lambda *_, **__: None)

    def run(language: str = "en", page: str = "chat", **before: Any) -> AppTest:
        kept.clear()
        kept.update({"language": language} | before)
        at = AppTest.from_file(str(APP), default_timeout=20).switch_page(f"views/{page}.py")
        at.session_state["_presets_told"] = {}
        return at.run()

    yield run
    state.hub().gateway.close()
    st.cache_resource.clear()


@pytest.fixture
def view(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    """One page without the app around it, by its module's name, as somebody has it who reads that language."""
    monkeypatch.setenv(URL, demo.url)
    st.cache_resource.clear()
    st.cache_data.clear()

    def run(name: str, language: str = "en") -> AppTest:
        at = AppTest.from_string(f"from dashboard.views import {name}\n{name}.page()", default_timeout=20)
        at.session_state["language"] = language
        return at.run()

    yield run
    state.hub().gateway.close()
    st.cache_resource.clear()


def free(gateway: Gateway, id_: str) -> list[dict[str, Any]]:
    """A session's messages, once nobody writes to it any more."""
    for _ in range(400):
        if gateway.get(f"/api/sessions/{id_}")["running"] is None:
            rows: list[dict[str, Any]] = gateway.get(f"/api/sessions/{id_}/messages")["messages"]
            return rows
        time.sleep(0.02)
    raise AssertionError("it never ended")


@pytest.fixture(scope="package")
def site(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app as a process; its address."""
    process = started(tmp_path_factory.mktemp("app"), "dashboard", "--gateway", demo.url, "--listen", "127.0.0.1:0")
    yield told(process, r"(http://127\.0\.0\.1:\d+)")
    ended(process)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def visited(chromium: Browser, site: str) -> Iterator[Page]:
    """A page of the app's address that stays open: the pages of all tests share its process, so that the app's code is fetched and compiled once."""
    context = chromium.new_context(base_url=site, viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/healthz")
    yield page
    context.close()


@pytest.fixture
def context(visited: Page, site: str) -> Iterator[BrowserContext]:
    """A browser that remembers nothing; it asks nobody but the app."""
    context = visited.context
    foreign: list[str] = []

    def noted(request: Request) -> None:
        if not request.url.startswith((site, "data:", "blob:")):
            foreign.append(request.url)

    context.on("request", noted)
    yield context
    for page in context.pages:
        if page is not visited:
            page.close()
    visited.evaluate("localStorage.clear()")
    context.clear_cookies()
    context.remove_listener("request", noted)
    assert foreign == []


def opened(context: BrowserContext, path: str = "/") -> Page:
    """A page that can be used."""
    page = context.new_page()
    page.goto(path)
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_visible()
    return page
