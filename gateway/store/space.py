"""The disk that an SQLite file is on. A full one fails deleting as well: so a reserve lies beside the file, to be given up in time."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

GIB = 2**30
RESERVE_BYTES = 8 * 2**20


class Room(StrEnum):
    """How much is left."""

    AMPLE = "ample"
    LOW = "low"
    SCARCE = "scarce"  # rows are not kept any more, only sums


class Usage(NamedTuple):
    """As shutil.disk_usage tells it; bytes."""

    total: int
    used: int
    free: int


def room(usage: Usage) -> Room:
    """Under 10 % is low, under 5 % scarce; on large disks under 5 GiB, and 1 GiB."""
    if usage.free < min(usage.total // 20, GIB):
        return Room.SCARCE
    return Room.LOW if usage.free < min(usage.total // 10, 5 * GIB) else Room.AMPLE


class Space:
    """Watches one disk. ``look`` may block: it belongs into a thread."""

    def __init__(self, file: Path, usage: Callable[[Path], Usage]) -> None:
        self._folder = file.parent
        self.reserve = file.with_name(f"{file.name}.reserve")
        self._usage = usage
        self.room, self.free = Room.AMPLE, 0

    def __repr__(self) -> str:
        return f"<Space [{self.free / GIB:.1f} GiB free | {self.room}]>"

    def look(self) -> Room:
        """How it is now. The reserve is made while there is ample room and given up when room is scarce. Raises OSError."""
        usage = self._usage(self._folder)
        self.room, self.free = room(usage), usage.free
        if self.room is Room.SCARCE:
            self.reserve.unlink(missing_ok=True)
        elif self.room is Room.AMPLE and not self.reserve.exists():
            self._set_aside()
        return self.room

    def _set_aside(self) -> None:
        part = self.reserve.with_suffix(".part")
        part.touch(0o600)
        part.write_bytes(bytes(RESERVE_BYTES))
        part.rename(self.reserve)
