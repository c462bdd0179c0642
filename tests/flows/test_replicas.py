"""Two gateways before the same hosts, on one PostgreSQL: each minds what the other has under way."""

import itertools
import json
from collections.abc import Callable

import pytest

from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.sockets import until
from tests.stage import Stage
from tests.store.postgres import Postgres

_numbers = itertools.count()


@pytest.fixture
def shared(postgres: Postgres) -> Callable[[], dict[str, object]]:
    """The section of a configuration that leads to one fresh database."""
    name = f"replicas{next(_numbers)}"
    postgres.sql(f"CREATE DATABASE {name}")
    return lambda: {"url": postgres.url_of(name), "replicas": 2}


async def acquainted(*stages: Stage) -> None:
    """Wait until all know of each other."""
    for stage in stages:
        replicas = stage.gateway.replicas
        assert replicas is not None
        await until(lambda replicas=replicas: replicas.bus.up and len(replicas.others) == len(stages) - 1, 20.0)  # type: ignore[misc]


async def test_what_runs_at_the_other_one_counts(corral: Corral, shared: Callable[[], dict[str, object]]) -> None:
    """A host that the other gateway keeps busy looks busy here, and is free again when it is."""
    hosts = simulated("gpu1", tokens_per_second=5.0), simulated("gpu2", tokens_per_second=5.0)
    one = await corral(*hosts, database=shared())
    two = await corral(*hosts, database=shared())
    await acquainted(one, two)
    for host in hosts:
        await host.load(TEXT)
    for stage in (one, two):
        await stage.gateway.poller.first_round(5.0)
    held = call("/api/generate", tokens=1000)
    async with one.begun(held) as client:
        await client.head()
        busy = next(iter(one.gateway.generations)).host
        await until(lambda: elsewhere(two)[busy] == 1, 10.0)
        route = json.loads((await ask(two.url, "POST", "/api/route/explain", call("/api/generate").body)).body)
        assert route["host"] != busy
        assert next(row for row in route["costs"] if row["host"] == busy)["queue_wait"] > 0
    await until(lambda: elsewhere(two)[busy] == 0, 10.0)


def elsewhere(stage: Stage) -> dict[str | None, int]:
    """What a gateway thinks that others hold, by host."""
    return {view.name: view.elsewhere for view in stage.gateway.fleet.snapshot(0.0).hosts}
