"""The app before a real gateway with simulated hosts."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


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
