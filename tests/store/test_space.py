"""How full a disk may be, and what lies aside for the day it is."""

import stat
from pathlib import Path

import pytest

from gateway.store.space import GIB, RESERVE_BYTES, Room, Space, Usage, room


@pytest.mark.parametrize(
    ("total", "free", "how"),
    [
        (10 * GIB, 1.1 * GIB, Room.AMPLE),
        (10 * GIB, 0.9 * GIB, Room.LOW),
        (10 * GIB, 0.4 * GIB, Room.SCARCE),
        (4000 * GIB, 6 * GIB, Room.AMPLE),
        (4000 * GIB, 4 * GIB, Room.LOW),
        (4000 * GIB, 0.9 * GIB, Room.SCARCE),
    ],
)
def test_room(total: float, free: float, how: Room) -> None:
    """A share of a small disk, a size of a large one."""
    assert room(Usage(int(total), int(total - free), int(free))) is how


def test_the_reserve(tmp_path: Path) -> None:
    """Made while there is room, kept while it is low, given up when it is scarce, made again later."""
    free = 9 * GIB
    space = Space(tmp_path / "corral.db", lambda _folder: Usage(10 * GIB, 10 * GIB - free, free))
    assert space.look() is Room.AMPLE
    made = space.reserve.stat()
    assert (made.st_size, stat.S_IMODE(made.st_mode)) == (RESERVE_BYTES, 0o600)
    free = int(0.9 * GIB)
    assert space.look() is Room.LOW
    assert space.reserve.exists()
    free = 0
    assert space.look() is Room.SCARCE
    assert list(tmp_path.iterdir()) == []
    free = int(0.9 * GIB)
    assert space.look() is Room.LOW
    assert not space.reserve.exists()
    free = 9 * GIB
    assert space.look() is Room.AMPLE
    assert space.reserve.exists()


def test_a_disk_that_is_there(tmp_path: Path) -> None:
    """A folder that is not there is an error, not an empty disk."""
    with pytest.raises(FileNotFoundError):
        Space(tmp_path / "not" / "there.db", lambda folder: Usage(9 * GIB, 0, folder.stat().st_size)).look()
