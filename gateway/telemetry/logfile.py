"""Where log lines end up: a file, which may be moved away while we write, or standard output."""

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from gateway.errors import ConfigError


class LogFile:
    """``log.path``, or standard output where it is empty. A file that was moved or removed is opened anew. From one thread. Raises ConfigError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._torn = False
        self._failed = False
        if not path:
            self._stream: IO[bytes] = sys.stdout.buffer
            return
        try:
            self._stream = _opened(path)
        except OSError as error:
            raise ConfigError(f"cannot write log.path = {path!r}: {error.strerror}") from None

    def write(self, lines: bytearray) -> int:
        """Write whole lines; how many of them were lost. The first of a row of failures is told on standard error."""
        if self._path:
            self._follow()
        before = b"\n" if self._torn else b""
        data, at = before + lines if before else lines, 0
        try:
            while at < len(data):
                at += self._stream.write(memoryview(data)[at:])
            if not self._path:
                self._stream.flush()
        except (OSError, TypeError, ValueError) as error:  # a full disk, a pipe that is closed or does not block
            self._tell(error)
            self._torn = self._torn if at == 0 else data[at - 1] != ord("\n")
            return data[at:].count(b"\n") - (0 if at else len(before))
        self._torn = self._failed = False
        return 0

    def _tell(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"corral: the log cannot be written: {error}\n")

    def _follow(self) -> None:
        """The file of that name, if it is another one now: whoever rotates logs has moved ours."""
        path = Path(self._path)
        with contextlib.suppress(OSError):
            if not path.exists() or not os.path.samestat(path.stat(), os.fstat(self._stream.fileno())):
                stream = _opened(self._path)
                self._stream.close()
                self._stream, self._torn = stream, False

    def close(self) -> None:
        """Standard output stays open."""
        if self._path:
            self._stream.close()


def _opened(path: str) -> IO[bytes]:
    return open(path, "ab", buffering=0)
