"""What all tests share: the event loop of production, and gateways that must leave nothing behind."""

import asyncio
import contextlib
import gc
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway.app import Gateway
from gateway.config import DatabaseConfig
from gateway.loop import LOOP
from gateway.store.engine import Database, State
from tests.builders import config
from tests.stage import Host, Stage
from tests.store.postgres import Postgres


class Corral(Protocol):
    """Starts hosts, and a gateway before them; ``sections`` are of its configuration."""

    def __call__(self, *hosts: Host, slots: int | Mapping[str, int] = 1, **sections: Any) -> Awaitable[Stage]: ...


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers that are read here."""
    config.addinivalue_line("markers", "every_loop: runs on asyncio's own event loop as well as on that of production")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what stays to the end: half a million objects of tests and of what they import."""
    gc.freeze()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What runs a gateway runs on the loop that production runs on, everything else on asyncio's own."""
    production = {"production": LOOP} if "corral" in getattr(item, "fixturenames", ()) else {}
    own = {"asyncio": asyncio.new_event_loop} if not production or item.get_closest_marker("every_loop") else {}
    return production | own


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    """Starts gateways."""
    async with corrals(tmp_path) as start:
        yield start


@contextlib.asynccontextmanager
async def corrals(tmp_path: Path) -> AsyncIterator[Corral]:
    """Starts gateways. Each must end with no lease, generation, waiter, task or connection left, and one record for each request."""
    before = asyncio.all_tasks()
    stages: list[Stage] = []
    async with contextlib.AsyncExitStack() as stack:

        async def start(*hosts: Host, slots: int | Mapping[str, int] = 1, **sections: Any) -> Stage:
            for host in hosts:
                if not any(host in stage.hosts for stage in stages):
                    await stack.enter_async_context(host)
            log = tmp_path / f"corral{len(stages)}.log"
            given = {"log": {"path": str(log)}} | sections
            gateway = Gateway(config([(host.name, host.url) for host in hosts], slots, **given), seed=1)
            await gateway.start()
            stages.append(Stage(gateway, hosts, log))
            return stages[-1]

        yield start
        async with contextlib.AsyncExitStack() as end:
            for stage in stages:
                end.push_async_callback(stage.stop)
            for stage in stages:
                await stage.finish()
        for stage in stages:
            await stage.nothing_open()
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    assert not left


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of this process; who stops it starts it again."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the tables of this code: to copy it is ten times as fast as to migrate another one."""
    path = tmp_path_factory.mktemp("migrated") / "corral.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def database_file(migrated_file: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    return Path(shutil.copy(migrated_file, tmp_path / "corral.db"))


@pytest.fixture
def file_url(database_file: Path) -> str:
    """Of that copy."""
    return f"sqlite:///{database_file}"


@pytest.fixture(scope="session")
def migrated_name(postgres: Postgres) -> str:
    """A database on the server of the tests, to copy as well."""
    postgres.sql("CREATE DATABASE migrated")
    asyncio.run(_migrate(postgres.url_of("migrated")))
    return "migrated"


async def _migrate(url: str) -> None:
    made = Database(DatabaseConfig(url), time.monotonic)
    await made.start(30.0)
    assert made.state is State.UP, made.why
    await made.close()
