"""Real ``corral`` processes: started with nothing of the tester's own settings, and gone at the end, with all they started."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import gateway
from tests.sockets import until

ROOT = Path(__file__).parent.parent
OURS = os.pathsep.join(dict.fromkeys((str(Path(gateway.__file__).parent.parent), str(ROOT))))
"""Where Python finds the gateway that these tests have, compiled or not, and behind it all else of ours."""
SECONDS = 15.0


class Process:
    """One running process, its lines as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line of its output in which this is found."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while text := (await self._process.stdout.readline()).decode():
                self.lines.append(text)
                if found := re.search(pattern, text):
                    return found
        errors = await self._process.stderr.read() if self._process.stderr else b""
        raise AssertionError(f"it ended without {pattern!r}: {''.join(self.lines)}{errors.decode()}")

    async def listens(self) -> str:
        """The URL of a gateway, once it answers there."""
        return (await self.line(r"listens on (http://\S+) for"))[1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process alone."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to all processes that were started there."""
        os.killpg(self.pid, signal.SIGINT)

    async def gone(self) -> None:
        """Wait until the process itself has ended, whatever became of what it started."""
        await until(lambda: self._process.returncode is not None, SECONDS)

    async def ended(self) -> tuple[int, str]:
        """Exit code and what it said on standard error, once it has ended."""
        async with asyncio.timeout(SECONDS):
            out, errors = await self._process.communicate()
        self.lines += out.decode().splitlines()
        assert self._process.returncode is not None
        return self._process.returncode, errors.decode()


def corral(cwd: Path, *arguments: str, **environ: str) -> contextlib.AbstractAsyncContextManager[Process]:
    """``corral`` with these arguments. Its group is killed at the end if it has not ended by then."""
    return python(cwd, "-m", "gateway", *arguments, **environ)


def python(cwd: Path, *arguments: str, **environ: str) -> contextlib.AbstractAsyncContextManager[Process]:
    """The same with any program of ours."""
    return program(cwd, sys.executable, *arguments, **environ)


@contextlib.asynccontextmanager
async def program(cwd: Path, *command: str, **environ: str) -> AsyncIterator[Process]:
    """The same with any program at all."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=usual | {"PYTHONPATH": OURS, "PYTHONUNBUFFERED": "1", "CORRAL_DATABASE_URL": "none"} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Process(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def answers(url: str) -> bool:
    """Whether anybody listens at a URL."""
    host, port = re.findall(r"//\[?(.*?)\]?:(\d+)", url)[0]
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return True
