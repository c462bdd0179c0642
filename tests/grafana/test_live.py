"""A real Prometheus scrapes a live Corral: every expression says something, and alerts fire when hosts are killed."""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import promql_parser as tree

from grafana.build import boards
from grafana.checks import Expression, expressions
from grafana.rules.file import groups, shrunk
from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, OTHER, TEXT, Call, call, simulated
from tests.collector import Collector
from tests.conftest import Corral
from tests.contract.raw import Cut, ask
from tests.grafana.prometheus import Prometheus, prometheus
from tests.processes import corral as process
from tests.stage import Client

HURRY = 360
"""Rules' windows and waits are divided by this: an hour is ten seconds."""

WINDOW = "20s"
HELD = "held:135m"

SILENT = {
    "Restarts": "nothing restarts here",
    "New configuration": "nor is the configuration changed",
    "Gateways on the database / A": "several gateways need PostgreSQL",
    "Bus up / A": "idem",
    "Bus between gateways / A": "idem",
    "Deleted / A": "nothing is a week old",
    "Age of the oldest request / A": "the janitor, who knows it, has not been round",
    "Pauses of the collector, p99 / A": "it runs once in fifty thousand objects",
    "CorralReplicaBusDown": "several gateways need PostgreSQL",
    "CorralAbsent": "Corral is there",
}
"""Expressions that say nothing here, by how they end, and why."""


# -- every expression ---------------------------------------------------------------------------------------------------------------


async def test_every_expression_says_something(tmp_path: Path) -> None:
    """Of every panel, annotation, variable and rule, against a process that has had one of everything."""
    hosts = [
        simulated("a", TEXT, OTHER, EMBEDDING, max_loaded=1, load_bytes_per_second=2e10),
        simulated("b", TEXT, EMBEDDING, max_loaded=1, load_bytes_per_second=2e10),
        simulated("c", HELD),
    ]
    async with contextlib.AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(host)
        command, database = ("serve", "--config", written(tmp_path, hosts)), f"sqlite:///{tmp_path}/kept.db"
        gateway = await stack.enter_async_context(process(tmp_path, *command, CORRAL_DATABASE_URL=database))
        url = await gateway.listens()
        server = await stack.enter_async_context(prometheus(tmp_path, url, shrunk(groups(), HURRY)))
        hosts[2].faults.set("hang_before_headers")
        for _ in range(3):  # one is held, the others wait
            held = await stack.enter_async_context(Client.to(url))
            given = call("/api/chat", HELD)
            await held.send("POST", given.path, given.body, given.headers)
        left = {each.where: each for each in expressions(boards().values(), groups())}
        silent = {where for where in left for end in SILENT if where.endswith(end)}
        assert all(any(where.endswith(end) for where in silent) for end in SILENT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(25):
                for number in range(1000):
                    await one_of_everything(url, hosts, number)
                    left = {where: each for where, each in left.items() if not await server.values(asked(each))}
                    if left.keys() <= silent:
                        break
        unsaid = [f"{where}: {asked(each)}" for where, each in left.items() if where not in silent]
        assert not unsaid, "\n".join(unsaid)
        await all_well(server)


def asked(expression: Expression) -> str:
    """What is asked in place of an expression: variables chosen, of a record its result, of an alert what it compares."""
    text = expression.text.replace("$__rate_interval", WINDOW)
    text = re.sub(r"\$(job|instance|model|host)\b", ".+", text)
    if expression.kind == "record":
        return expression.where
    if expression.kind == "alert":
        return compared(tree.parse(text)).prettify()
    return text


def compared(node: tree.Expr) -> tree.Expr:
    """What stands on the left of all comparisons."""
    match node:
        case tree.ParenExpr():
            return compared(node.expr)
        case tree.BinaryExpr() if str(node.op) in ("and", "unless", ">", "<", ">=", "=="):
            return compared(node.lhs)
    return node


async def all_well(server: Prometheus) -> None:
    """No rule failed, and scrapes come."""
    for group in (await server.get("rules"))["groups"]:
        assert [(rule["name"], rule.get("lastError")) for rule in group["rules"] if rule["health"] != "ok"] == []

    async def scraped() -> bool:
        (target,) = (await server.get("targets"))["activeTargets"]
        return bool(target["health"] == "up" and not target["lastError"])

    await server.eventually(scraped)  # on a busy machine one may take too long


def written(folder: Path, hosts: list[SimulatedHost]) -> str:
    """A configuration for these hosts."""
    lines = [
        'listen = "127.0.0.1:0"',
        f'pin = ["{HELD}@c"]',
        "[poll]",
        "interval_seconds = 0.2",
    ]
    for host in hosts:
        lines += [
            "[[hosts]]",
            f'name = "{host.name}"',
            f'url = "{host.url}"',
            "slots = 1",
            f"vram_bytes = {24 * 2**30}",
        ]
    path = folder / "corral.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


async def one_of_everything(url: str, hosts: list[SimulatedHost], number: int) -> None:
    """Requests that end in each way that a client can bring about, cold starts, a copy, an upload."""
    a, b, _ = hosts

    async def send(given: Call, host: SimulatedHost | None = None) -> int:
        pin = {"X-Corral-Host": host.name} if host else {}
        return (await ask(url, "POST", given.path, given.body, given.headers | pin)).status

    for path in ("/api/chat", "/api/generate", "/v1/chat/completions", "/api/embed"):
        await send(call(path, stream=True) if path != "/api/embed" else call(path))
    await send(call("/api/chat", OTHER, stream=True))
    b.faults.set("ps_error", times=1)
    a.faults.set("slow_first_byte", times=1, seconds=0.05)
    await send(call("/api/chat", stream=True), a)
    assert await send(call("/api/chat", "nobody:has")) == 404
    a.faults.set("reset_mid_stream", times=1, after_chunks=3)
    with contextlib.suppress(Cut):
        await send(call("/api/chat", stream=True, tokens=20), a)
    for host in (a, b):
        host.faults.set("busy", times=1)
    assert await send(call("/api/chat")) == 503
    await send(call("/api/chat"), a)
    await send(call("/api/chat"), b)
    async with Client.to(url) as leaving:
        given = call("/api/chat", stream=True, tokens=5000)
        await leaving.send("POST", given.path, given.body, given.headers | {"X-Corral-Host": "b"})
        await leaving.head()
        await leaving.chunk()
    copied = json.dumps({"source": TEXT, "destination": f"copy{number}"}).encode()
    assert await send(Call("/api/copy", copied)) == 200
    blob = f"{number}".encode() * 1000
    assert await send(Call(f"/api/blobs/sha256:{hashlib.sha256(blob).hexdigest()}", blob)) == 201


# -- hosts that are killed ----------------------------------------------------------------------------------------------------------


async def test_killed_hosts_raise_alerts(corral: Corral, tmp_path: Path) -> None:
    """One: it is down, and callers see little of it. All: nobody is left, and the budget burns. A trace that is kept shows as a point, which leads to
    its spans and to its line in the log."""
    a, b = simulated("a", tokens_per_second=500.0), simulated("b", tokens_per_second=500.0)
    async with contextlib.AsyncExitStack() as stack:
        collector = await stack.enter_async_context(Collector())
        traced = {"endpoint": collector.url, "ratio": 0.5, "per_second": 1000}
        stage = await corral(a, b, slots=4, poll={"interval_seconds": 0.1}, tracing=traced)
        server = await stack.enter_async_context(prometheus(tmp_path, stage.url, shrunk(groups(), HURRY)))
        await stack.enter_async_context(loaded(stage.url))
        await stage.records.until(30)
        assert not {"CorralHostDown", "CorralNoHealthyHost", "CorralAvailabilityBudgetBurn"} & set(
            await server.firing()
        )
        await a.kill()
        await server.eventually(lambda: fires(server, "CorralHostDown", host="a", severity="ticket"))
        assert "CorralNoHealthyHost" not in await server.firing()
        await b.kill()
        await server.eventually(lambda: fires(server, "CorralNoHealthyHost", severity="page"))
        await server.eventually(lambda: fires(server, "CorralAvailabilityBudgetBurn", severity="page", window="1h"))
        (alerts,) = [
            each for each in expressions(boards().values(), groups()) if each.where == "Corral / Hosts / Alerts"
        ]
        assert await server.values(asked(alerts))
        series = await server.get(
            "query_exemplars", query="corral_time_to_first_token_seconds_bucket", start=0, end=2**33
        )
        points = {point["labels"]["trace_id"] for each in series for point in each["exemplars"]}
        assert points
        for point in points:
            assert {span.kind for span in await collector.trace(point)} == {"server", "client"}
        stage.gateway.generations.flush()
        logged = [json.loads(line) for line in stage.log.read_text(encoding="utf-8").splitlines()]
        assert points <= {line["trace_id"] for line in logged if line["event"] == "generation"}
        await all_well(server)


async def fires(server: Prometheus, name: str, **labels: str) -> bool:
    """Whether this alert fires, with these labels."""
    return any(labels.items() <= told.items() for told in (await server.firing()).get(name, ()))


@contextlib.asynccontextmanager
async def loaded(url: str) -> AsyncIterator[None]:
    """Four callers ask one thing after the other, whatever comes of it."""
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            given = call("/api/chat", stream=True, tokens=20)
            with contextlib.suppress(ConnectionError, Cut):
                await ask(url, "POST", given.path, given.body, given.headers)

    async with asyncio.TaskGroup() as callers:
        for _ in range(4):
            callers.create_task(caller())
        try:
            yield
        finally:
            over.set()
