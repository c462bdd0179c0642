"""Databases for tests: a fresh one for each, of both kinds."""

import itertools
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
def fresh_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes empty databases of the kind that is tested, and returns their urls."""

    def fresh() -> str:
        name = f"t{next(_numbers)}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{name}.db"
        server: Postgres = request.getfixturevalue("postgres")
        server.sql(f"CREATE DATABASE {name}")
        return server.url_of(name)

    return fresh


@pytest.fixture
def url(fresh_url: Callable[[], str]) -> str:
    """Of one empty database."""
    return fresh_url()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """A migrated database, up."""
    made = Database(DatabaseConfig(url), time.monotonic)
    await made.start(30.0)
    assert made.state is State.UP, made.why
    yield made
    await made.close()
