"""A terminal of the tests' own: a real pseudo-terminal, what a program draws on it, and keys for it."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from tests.processes import ROOT

SECONDS = 15.0
HOME, MAIN_SCREEN = "\x1b[H", "\x1b[?1049l"
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One program on a terminal. It is read as it draws, so that it never waits for us."""

    def __init__(self, master: int, process: asyncio.subprocess.Process, before: list[Any]) -> None:
        self._master = master
        self._process = process
        self._before = before
        self._changed = asyncio.Event()
        self.output = ""
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has the other end any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.output += data.decode(errors="replace")
        self._changed.set()

    @property
    def screen(self) -> str:
        """The last picture that is whole, without its styles."""
        pictures = self.output.split(HOME)
        return _CODES.sub("", pictures[-1]).replace("\r", "")

    async def shows(self, pattern: str) -> re.Match[str]:
        """Where the screen has this, once it does."""
        try:
            async with asyncio.timeout(SECONDS):
                while not (found := re.search(pattern, self.screen)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in\n{self.screen}") from None
        return found

    def press(self, *keys: str) -> None:
        """Keys, as the terminal sends them."""
        os.write(self._master, "".join(keys).encode())

    def resize(self, columns: int, lines: int) -> None:
        """Drag its corner: the kernel tells the program."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def hang_up(self) -> None:
        """The connection is lost."""
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        self._master = -1

    async def ended(self) -> int:
        """The exit code, once the program has ended; the terminal is as it was."""
        async with asyncio.timeout(SECONDS):
            code = await self._process.wait()
        if self._master >= 0:
            assert termios.tcgetattr(self._master) == self._before
        return code

    async def close(self) -> None:
        """Kill what still runs."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._master >= 0:
            self.hang_up()


@contextlib.asynccontextmanager
async def corral(*arguments: str, columns: int = 80, lines: int = 24, **environ: str) -> AsyncIterator[Terminal]:
    """``corral`` on a terminal of its own, as in a shell that says nothing of colours or a gateway."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    before = termios.tcgetattr(master)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environ,
        preexec_fn=partial(_take, slave),
    )
    os.close(slave)
    terminal = Terminal(master, process, before)
    try:
        yield terminal
    finally:
        await terminal.close()


def _take(slave: int) -> None:
    """Make the terminal that of a new session: its keys are signals for the program, and so is its end."""
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
