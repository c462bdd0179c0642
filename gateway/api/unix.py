"""A Unix socket to listen on: what a dead process has left is replaced, what a living one has is not."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path


def bound(path: str, mode: int) -> socket.socket:
    """A socket bound there, whose file has this ``mode`` from its first moment and the owner and group of this process.

    Raises OSError: EADDRINUSE where somebody listens or another file is.
    """
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


def _make_way(path: str) -> None:
    """1. nothing is there: well; 2. another kind of file: in use; 3. somebody takes connections, or has too many: in use; 4. nobody does: removed."""
    try:
        kind = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EADDRINUSE, "a file is there that is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except BlockingIOError:
            raise _taken(path) from None
    raise _taken(path)


def _taken(path: str) -> OSError:
    return OSError(errno.EADDRINUSE, "another process listens there", path)


def identity(path: str) -> tuple[int, int] | None:
    """Which file is there; None: none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove(path: str, made: tuple[int, int] | None) -> None:
    """Remove the file that was ``made``: another process may have put its own there since."""
    if made is not None and identity(path) == made:
        with contextlib.suppress(OSError):
            Path(path).unlink()
