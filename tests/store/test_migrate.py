"""Migrations: from nothing to the schema of the code, once however many start, and never over what is newer."""

import asyncio
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text

from gateway.config import DatabaseConfig
from gateway.errors import StoreNewer
from gateway.store.engine import Database, State
from gateway.store.migrate import BACKUPS, HEAD, PACKAGE, back_up, revision
from gateway.store.schema import metadata, requests
from tests.store.recorded import numbered
from tests.store.test_retention import write

OURS = ("messages_fts", "requests_", "alembic_version")
"""Tables that only one kind of database has, or Alembic's own."""


def scripts() -> ScriptDirectory:
    """The migrations of the package."""
    config = Config()
    config.set_main_option("script_location", PACKAGE)
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _compared(entry: Any, name: str | None, kind: str, reflected: bool, _other: object) -> bool:
    if kind == "index" and name == "ix_messages_search":
        return False
    table = name if kind == "table" else getattr(getattr(entry, "table", None), "name", "")
    return not (reflected and str(table).startswith(OURS))


def differences(connection: Connection) -> list[Any]:
    """What a migration that is missing would have to do."""
    context = MigrationContext.configure(connection, opts={"include_object": _compared, "compare_type": True})
    return list(compare_metadata(context, metadata))


def test_head_is_the_last_migration() -> None:
    """The constant spares importing Alembic where there is nothing to do."""
    assert scripts().get_current_head() == HEAD


async def test_the_schema_is_what_the_migrations_make(database: Database) -> None:
    """Neither has what the other lacks, on both kinds."""
    async with database.writing() as connection:
        assert await connection.run_sync(revision) == HEAD
        assert await connection.run_sync(differences) == []


async def test_starters_who_race(empty_url: str) -> None:
    """Six at once: all come up, and the tables are made once."""
    databases = [Database(DatabaseConfig(empty_url), time.monotonic) for _ in range(6)]
    await asyncio.gather(*(database.start(60.0) for database in databases))
    assert [database.state for database in databases] == [State.UP] * 6, [database.why for database in databases]
    for database in databases:
        await database.close()


async def test_what_is_newer_is_left_alone(database: Database, url: str) -> None:
    """Nothing is read or written, and the words say why."""
    async with database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    older = Database(DatabaseConfig(url), time.monotonic)
    await older.start(30.0)
    assert older.state is State.NEWER
    with pytest.raises(StoreNewer, match=r"9999.*newer"):
        async with older.reading():
            pass
    await older.close()
    async with database.reading() as connection:
        assert await connection.run_sync(revision) == "9999"


async def test_what_an_older_gateway_writes_beside_this_one(database: Database) -> None:
    """Its requests waited as normal ones, as far as anybody knows."""
    await write(database, numbered(1))
    columns = ", ".join(column.name for column in requests.columns if column.name not in ("id", "priority"))
    async with database.writing() as connection:
        await connection.execute(text(f"INSERT INTO requests (id, {columns}) SELECT 'older', {columns} FROM requests"))
        found = select(requests.c.id, requests.c.priority).order_by(requests.c.id.desc())
        assert [row.priority for row in await connection.execute(found)] == ["normal", "normal"]


@pytest.fixture
def old_file(tmp_path: Path) -> Callable[[str], Path]:
    """A file as an earlier release left it."""

    def make(mark: str) -> Path:
        path = tmp_path / "corral.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS mark (what)")
            connection.execute("INSERT INTO mark VALUES (?)", (mark,))
            connection.commit()
        return path

    return make


def test_a_file_is_copied_before_it_is_changed(old_file: Callable[[str], Path]) -> None:
    """What was in it is in the copy, which nobody else can read; the newest two are kept."""
    for number in range(4):
        copy = back_up(old_file(f"m{number}"), f"000{number - 9}")
        assert copy is not None
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT max(what) FROM mark").fetchone() == (f"m{number}",)
    assert len(list(copy.parent.glob("*.bak"))) == BACKUPS


@pytest.mark.parametrize("at", [None, HEAD])
def test_nothing_is_copied_for_nothing(old_file: Callable[[str], Path], at: str | None) -> None:
    """An empty database, and one that is as it should be."""
    assert back_up(old_file("m"), at) is None
