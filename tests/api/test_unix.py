"""Unix sockets: whose file it is, and who may connect."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from gateway.api.unix import bound, identity, remove


def rights(path: Path) -> int:
    """The mode of a file, less its kind."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_its_rights(tmp_path: Path, mode: int) -> None:
    """As configured, whatever the process's umask, which stays as it was."""
    before = os.umask(0o027)
    try:
        with bound(str(tmp_path / "a.sock"), mode):
            assert rights(tmp_path / "a.sock") == mode
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_what_a_dead_process_left(tmp_path: Path) -> None:
    """Is replaced."""
    path = tmp_path / "a.sock"
    bound(str(path), 0o660).close()
    assert path.is_socket()
    with bound(str(path), 0o600) as sock:
        sock.listen()
        assert rights(path) == 0o600


@pytest.mark.parametrize("backlog", [8, 0], ids=["takes connections", "has too many"])
def test_a_living_one(tmp_path: Path, backlog: int) -> None:
    """Stays, and so does any other file."""
    path = tmp_path / "a.sock"
    with bound(str(path), 0o660) as sock, socket.socket(socket.AF_UNIX) as waiting:
        sock.listen(backlog)
        waiting.connect(str(path))
        for _ in range(2):
            with pytest.raises(OSError, match="another process listens there") as taken:
                bound(str(path), 0o660)
            assert taken.value.errno == errno.EADDRINUSE
        assert path.is_socket()
    other = tmp_path / "notes"
    other.write_text("keep", encoding="utf-8")
    with pytest.raises(OSError, match="a file is there that is no socket"):
        bound(str(other), 0o660)
    assert other.read_text(encoding="utf-8") == "keep"


def test_only_ones_own_is_removed(tmp_path: Path) -> None:
    """Not what another process has put there since."""
    path = tmp_path / "a.sock"
    with bound(str(path), 0o660):
        made = identity(str(path))
        path.rename(tmp_path / "b.sock")
        with bound(str(path), 0o660):
            remove(str(path), made)
            assert path.is_socket()
            remove(str(path), identity(str(path)))
            assert not path.exists()
    remove(str(path), made)
    assert identity(str(path)) is None
