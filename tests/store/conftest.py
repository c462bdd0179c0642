"""Databases for tests: a fresh one for each, of both kinds."""

import itertools
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.config import DatabaseConfig
from gateway.store.engine import Database, State
from tests.store.postgres import Postgres

KINDS = ("sqlite", "postgresql")
_numbers = itertools.count()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every test that needs a database runs on both."""
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Of one database in which there is nothing at all."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create()


@pytest.fixture
def fresh_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes databases of the kind that is tested, with tables and nothing in them, and returns their urls."""
    migrated = request.getfixturevalue("migrated_file" if kind == "sqlite" else "migrated_name")

    def copied() -> str:
        name = f"t{next(_numbers)}"
        shutil.copy(migrated, tmp_path / f"{name}.db")
        return f"sqlite:///{tmp_path}/{name}.db"

    if kind == "sqlite":
        return copied
    server: Postgres = request.getfixturevalue("postgres")
    server.drop()
    return lambda: server.create(migrated)


@pytest.fixture
def url(fresh_url: Callable[[], str]) -> str:
    """Of one of these databases."""
    return fresh_url()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """A migrated database, up."""
    made = Database(DatabaseConfig(url), time.monotonic)
    await made.start(30.0)
    assert made.state is State.UP, made.why
    yield made
    await made.close()
