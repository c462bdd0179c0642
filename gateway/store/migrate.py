"""Brings a database to this code's schema, under a lock, so that starters who race do it once.

Alembic is imported when there is something to do: it costs a quarter of a second and 11 MB, and most starts find all in place.
A database that is newer than the code is left alone.
"""

import importlib
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from gateway.errors import StoreNewer

HEAD = "0007"
BACKUPS = 2
PACKAGE = "gateway.store:migrations"
_LOCK = 0x434F5252414C  # any number, the same for all: an advisory lock of PostgreSQL
log = logging.getLogger(__name__)
logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its plugins


def revision(connection: Connection) -> str | None:
    """What the database is at; None while it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def lock(connection: Connection) -> None:
    """Wait for whoever migrates now. SQLite has the lock by BEGIN IMMEDIATE."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def migrate(connection: Connection) -> bool:
    """Upgrade to HEAD in the transaction that is open; whether there was anything to do. Raises StoreNewer.

    On SQLite foreign keys must be off: rebuilding a parent table would silently delete its children.
    """
    lock(connection)
    found = revision(connection)
    if found == HEAD:
        return False
    config = importlib.import_module("alembic.config").Config()
    config.set_main_option("script_location", PACKAGE)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = importlib.import_module("alembic.script").ScriptDirectory.from_config(config)
    if found is not None and found not in {script.revision for script in known.walk_revisions()}:
        raise StoreNewer(
            f"the database is at revision {found}, which this version does not know: it was made by a newer Corral"
        )
    importlib.import_module("alembic.command").upgrade(config, "head")
    if connection.dialect.name == "sqlite" and (lost := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
        raise RuntimeError(f"the migration left rows without their parents: {tuple(lost)}")
    log.info("the database is now at revision %s (was %s)", HEAD, found or "empty")
    return True


def back_up(path: Path, at: str | None) -> Path | None:
    """A copy of an SQLite file beside it before it is migrated; the newest BACKUPS are kept."""
    if at in (None, HEAD) or not path.exists():
        return None
    target = path.with_name(f"{path.name}.{at}.bak")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    target.chmod(0o600)
    kept = sorted(path.parent.glob(f"{path.name}.*.bak"), key=lambda file: file.stat().st_mtime)
    for old in kept[:-BACKUPS]:
        old.unlink()
    return target
