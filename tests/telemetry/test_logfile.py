"""Where log lines end up: whole, or counted as lost."""

import resource
from pathlib import Path

import pytest

from gateway.telemetry.logfile import LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lines go."""
    return tmp_path / "corral.log"


def test_a_disk_with_room_for_half_a_line(path: Path) -> None:
    """Half a line spoils no other: the next one begins a line of its own."""
    file, (soft, hard) = LogFile(str(path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        assert file.write(bytearray(b"a" * 99 + b"\n" + b"b" * 99 + b"\n" + b"c" * 99 + b"\n")) == 2
        assert file.write(bytearray(b"d" * 99 + b"\n")) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.write(bytearray(b"e" * 99 + b"\n")) == 0
    file.close()
    assert path.read_bytes().split(b"\n") == [b"a" * 99, b"b" * 50, b"e" * 99, b""]


def test_a_log_that_is_moved(path: Path) -> None:
    """As logrotate does: what comes then is in a new file of that name."""
    file = LogFile(str(path))
    file.write(bytearray(b"1\n"))
    path.rename(path.with_suffix(".1"))
    file.write(bytearray(b"2\n"))
    path.unlink()
    file.write(bytearray(b"3\n"))
    file.close()
    assert (path.with_suffix(".1").read_bytes(), path.read_bytes()) == (b"1\n", b"3\n")
