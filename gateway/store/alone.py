"""One gateway for an SQLite file: whoever has it holds a lock on an empty file beside it, which a process that dies lets go by itself.

The lock is one of SQLite's own, so it is the same on every system. It only tells: a gateway that takes another's place may come before that has gone.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

log = logging.getLogger(__name__)


class Claim:
    """On one file. ``take`` and ``close`` from any thread, one after the other."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = file.with_name(f"{file.name}.lock")
        self._held: sqlite3.Connection | None = None

    def take(self) -> bool:
        """Claim it. False, with a line in the log, where another gateway has it; a folder in which no lock can be made is no reason for one."""
        connection = None
        try:
            connection = sqlite3.connect(self.lock, timeout=0.0, isolation_level=None, check_same_thread=False)
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                log.debug("%s cannot be locked: %s", self.lock, error)
                return True
            log.warning(
                "another gateway uses %s: the two know nothing of each other's requests, drains and limits, and a start takes"
                " what the other has under way for left behind. SQLite is for one gateway; several need PostgreSQL (database.url)",
                self.file,
            )
            return False
        self._held = connection
        return True

    def close(self) -> None:
        """Let it go."""
        if self._held is not None:
            with closing(self._held) as connection:
                connection.rollback()
            self._held = None
