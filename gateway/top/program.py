"""``corral top``: looks at a gateway again and again, draws what it sees, and does what keys say."""

import asyncio
import dataclasses
import os
import signal
import ssl
import sys
import time
from io import TextIOWrapper

from rich.console import Console

from gateway.tasks import Tasks, pause
from gateway.top.asking import Asking, Unreachable
from gateway.top.desk import Act, Desk, Verb, pressed, settled
from gateway.top.keys import keys
from gateway.top.look import Look
from gateway.top.picture import Picture, painted
from gateway.top.rates import rates, remembered
from gateway.top.screen import Screen, opened

READ_BYTES = 1024  # of keys at a time
_QUITTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run(url: str, interval_seconds: float, key: str = "", tls: ssl.SSLContext | None = None) -> int:
    """Until ``q``; where it is no terminal, one picture. The exit code: 0, or 2 if there is no gateway to make a picture of."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no arrows shows a question mark
    console = Console(highlight=False)
    live = all((sys.stdin.isatty(), sys.stdout.isatty(), console.is_terminal, not console.is_dumb_terminal))
    async with Asking(url, key, tls) as asking:
        if not live:
            return await _once(asking, console, interval_seconds)
        with opened(console, sys.stdin.fileno()) as screen:
            await Top(asking, screen, interval_seconds).run(sys.stdin.fileno())
    return 0


async def _once(asking: Asking, console: Console, interval_seconds: float) -> int:
    """Two looks, since figures over time need them, and one picture."""
    try:
        looks = [await asking.look()]
        await pause(interval_seconds)
        looks.append(await asking.look())
    except Unreachable as error:
        print(f"corral: {asking.url}: {error}", file=sys.stderr)
        return 2
    console.print(painted(Picture(asking.url, looks[-1], rates(remembered(looks[:1], looks[1]))), console.width))
    return 0


class Top:
    """What is on the screen, and who changes it: the loop that looks, keys, and acts that come back."""

    def __init__(self, asking: Asking, screen: Screen, interval_seconds: float) -> None:
        self._asking = asking
        self._screen = screen
        self._interval_seconds = interval_seconds
        self._looks: tuple[Look, ...] = ()
        self._desk = Desk()
        self._down = ""
        self._pending = b""  # the beginning of a key
        self._again = asyncio.Event()  # look again now
        self._scope = asyncio.timeout(None)  # ends when somebody quits
        self._acts = Tasks()

    async def run(self, keyboard: int) -> None:
        """Until somebody quits, or the terminal is gone."""
        loop = asyncio.get_running_loop()
        for number in _QUITTING:
            loop.add_signal_handler(number, self._quit)
        loop.add_signal_handler(signal.SIGWINCH, self._draw)
        loop.add_reader(keyboard, self._read, keyboard)
        try:
            async with self._scope:
                self._draw()
                await self._look_for_ever()
        except TimeoutError:
            if not self._scope.expired():
                raise
        finally:
            loop.remove_reader(keyboard)
            await self._acts.close()

    def _quit(self) -> None:
        if not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _look_for_ever(self) -> None:
        while True:
            try:
                self._looks = remembered(self._looks, await self._asking.look())
                self._down = ""
            except Unreachable as error:
                self._down = str(error)
            self._desk = settled(self._desk, self._look)
            self._take(b"", more=False)  # an ESC that nothing followed was the key itself
            self._draw()
            self._again.clear()
            await pause(self._interval_seconds, self._again)

    @property
    def _look(self) -> Look | None:
        return self._looks[-1] if self._looks else None

    def _draw(self) -> None:
        look = self._look
        old = time.monotonic() - look.at if look else 0.0
        picture = Picture(self._asking.url, look, rates(self._looks), self._down, old, self._desk)
        try:
            self._screen.draw(picture)
        except OSError:  # the terminal is gone, and so is whoever watched
            self._quit()

    def _read(self, keyboard: int) -> None:
        try:
            data = os.read(keyboard, READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._quit()
            return
        self._take(data, more=True)
        self._draw()

    def _take(self, data: bytes, *, more: bool) -> None:
        found, self._pending = keys(self._pending + data, more=more)
        for key in found:
            self._desk, act = pressed(self._desk, key, self._look)
            if act is not None:
                self._do(act)

    def _do(self, act: Act) -> None:
        if act.verb is Verb.QUIT:
            self._quit()
        elif len(self._acts):
            self._tell("the gateway has not answered the last key yet")
        else:
            self._acts.spawn(act.verb, self._act(act))

    async def _act(self, act: Act) -> None:
        try:
            if act.verb is Verb.CANCEL:
                told = await self._asking.cancel(act.target)
            else:
                told = await self._asking.drain(act.target, draining=act.verb is Verb.DRAIN)
        except Unreachable as error:
            told = f"no answer: {error}"
        self._tell(f"{act.words}: {told}")
        self._again.set()
        self._draw()

    def _tell(self, note: str) -> None:
        self._desk = dataclasses.replace(self._desk, note=note)
