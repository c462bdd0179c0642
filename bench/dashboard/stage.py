"""Simulated hosts in this process, ``corral serve`` and the app as processes of their own, a browser; and what is asked of each."""

import asyncio
import contextlib
import math
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from bench.processes import BUILD, Running, free_port, start
from dashboard.gateway import Gateway
from simulator.fleet import SimulatedFleet
from simulator.host import SimulatedHost
from simulator.profile import HostProfile

MODEL = "llama3.2:1b"
PATIENCE_SECONDS = 60.0
SLOTS = {"many": 30}
HOSTS = {
    "busy": HostProfile(load_bytes_per_second=math.inf),
    "loading": HostProfile(load_bytes_per_second=1e7),  # two minutes
    "reading": HostProfile(load_bytes_per_second=math.inf, prefill_tokens_per_second=0.5),
    "streaming": HostProfile(load_bytes_per_second=math.inf),
    "fast": HostProfile(load_bytes_per_second=math.inf, tokens_per_second=200.0),
    "many": HostProfile(load_bytes_per_second=math.inf, tokens_per_second=60.0, parallel=30),
}
"""One for each thing that is to be looked at: a chat's session names its host."""
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
WATCH = """
addEventListener("click", () => { window.clicked = performance.timeOrigin + performance.now() }, { capture: true })
window.blocked = []
new PerformanceObserver(list => blocked.push(...list.getEntries().map(task => task.duration))).observe({ entryTypes: ["longtask"] })
"""
"""In every page: when somebody clicked, in milliseconds since 1970, and the milliseconds of its long tasks."""


class Stage:
    """``with`` starts and ends it all. ``app`` and ``corral`` are the processes, ``gateway`` asks Corral, ``site`` is the app's address."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._fleet = SimulatedFleet(HOSTS, seed=1)
        self._end = contextlib.ExitStack()

    def __enter__(self) -> "Stage":
        with self._end as end:
            thread = threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True)
            thread.start()
            end.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self.run(self._fleet.start())
            end.callback(lambda: self.run(self._fleet.stop()))
            folder = Path(end.enter_context(tempfile.TemporaryDirectory()))
            BUILD.mkdir(exist_ok=True)
            self.corral = self._corral(folder)
            end.callback(self.corral.stop)
            self.gateway = Gateway(f"http://127.0.0.1:{self.corral.port}")
            end.callback(self.gateway.close)
            port = free_port()
            command = [
                sys.executable,
                "-m",
                "dashboard",
                "--gateway",
                self.gateway.url,
                "--listen",
                f"127.0.0.1:{port}",
            ]
            self.app = start("app", command, port, ready_path="/healthz")
            end.callback(self.app.stop)
            self.site = f"http://127.0.0.1:{port}"
            self.browser: Browser = end.enter_context(_browser())
            self._end = end.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _corral(self, folder: Path) -> Running:
        rows = [
            f'[[hosts]]\nname = "{host.name}"\nurl = "{host.url}"\nslots = {SLOTS.get(host.name, 1)}'
            for host in self._fleet
        ]
        rows.append(f'[database]\nurl = "sqlite:///{folder}/corral.db"\n[log]\npath = "{folder}/corral.log"')
        config = folder / "corral.toml"
        config.write_text("\n".join(rows), encoding="utf-8")
        port = free_port()
        program = Path(sys.executable).with_name("corral")
        command: list[str | Path] = [program, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"]
        return start("corral-app", command, port)

    def run(self, work: Any) -> Any:
        """A coroutine beside the hosts, in a thread of its own: what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def host(self, name: str) -> SimulatedHost:
        """One of them; its ledger may be read at any time."""
        return self._fleet[name]

    def session(self, host: str, tokens: int) -> str:
        """A new session whose answers come from that host and are so long; its id."""
        options = {"num_predict": tokens, "num_ctx": 8192}
        wish = {"title": host, "model": MODEL, "host": host, "options": options}
        return str(self.gateway.post("/api/sessions", wish)["id"])

    @contextlib.contextmanager
    def page(self, session: str = "", path: str = "/") -> Iterator[Page]:
        """The app in a browser that remembers this session, once one may type."""
        context = self.browser.new_context(base_url=self.site, viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        context.add_init_script(WATCH)
        if session:
            kept = f'localStorage.setItem("corral", JSON.stringify({{session: "{session}"}}))'
            context.add_init_script(f'if (!localStorage.getItem("corral")) {kept}')
        page = context.new_page()
        page.goto(path)
        page.get_by_test_id("stChatInputTextArea").wait_for()
        idle(page)
        yield page
        context.close()


@contextlib.contextmanager
def _browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("There is no browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def idle(page: Page) -> None:
    """Nothing runs for the page, and nothing is about to."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def say(page: Page, text: str) -> None:
    """Type and send; return once it can be stopped."""
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").wait_for()


def until(true: Callable[[], Any], every_seconds: float = 0.001) -> Any:
    """What it says once it is anything, looked at that often."""
    over = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()):
        if time.monotonic() > over:
            raise SystemExit("bench.dashboard: what was waited for did not come")
        time.sleep(every_seconds)
    return found
