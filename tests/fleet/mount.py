"""A mount that does not answer."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.stage import SECONDS


class Hanging:
    """A mount: asking after ``file`` is not answered until ``answers`` is set. ``asked`` has how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
        self.asked, self.answers, stat = threading.Semaphore(0), threading.Event(), Path.stat

        def hanging(path: Path, **more: Any) -> os.stat_result:
            if str(path) == file:
                self.asked.release()
                assert self.answers.wait(SECONDS)
            return stat(path, **more)

        monkeypatch.setattr(Path, "stat", hanging)
