"""The app before a real gateway with simulated hosts: in Streamlit's own tester, and in a real browser."""

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
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from streamlit.testing.v1 import AppTest

from dashboard import browser, state
from dashboard.gateway import URL, Gateway
from tests.components import missing

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
]
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)


class Demo:
    """``corral demo``, as a process of its own: an app's script blocks the thread that runs it. ``url``: its gateway."""

    def __init__(self, folder: Path) -> None:
        usual = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
        command = [sys.executable, "-m", "gateway", "demo", "--listen", "127.0.0.1:0"]
        environ = usual | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.url = self._line(r"listens on (http://\S+) for")

    def _line(self, pattern: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError("the demo did not start")

    def stop(self) -> None:
        """As Ctrl-C would."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A gateway with three simulated hosts and a database."""
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
        return AppTest.from_file(str(APP), default_timeout=20).switch_page(f"views/{page}.py").run()

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


@pytest.fixture(scope="module")
def site(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
def context(chromium: Browser, site: str) -> Iterator[BrowserContext]:
    """A browser that was never here; it asks nobody but the app."""
    context = chromium.new_context(base_url=site, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    foreign: list[str] = []
    context.on(
        "request",
        lambda request: None if request.url.startswith((site, "data:", "blob:")) else foreign.append(request.url),
    )
    yield context
    context.close()
    assert foreign == []


def opened(context: BrowserContext, path: str = "/") -> Page:
    """A page that can be used."""
    page = context.new_page()
    page.goto(path)
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_visible(timeout=PATIENCE_MS)
    return page
