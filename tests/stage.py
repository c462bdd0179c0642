"""A gateway before simulated hosts, on real sockets through the production server, and what tests ask of the whole."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from gateway.app import Gateway
from gateway.record import GenerationRecord
from gateway.tasks import pause
from simulator.host import SimulatedHost
from tests.builders import Call
from tests.contract.raw import Answer, Connection, Cut, ask
from tests.real import RealHost
from tests.scripted import ScriptedHost
from tests.sockets import LOOK_SECONDS

SECONDS = 10.0
"""How long a test waits for what must come."""

STILL = 20
"""So many of an operator's requests with nothing sent in between: the host is held up."""

QUICK = 20
"""So often an operator asks without a pause."""

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

PADDING = " " * 3_000
"""Behind a model's name it is echoed in every chunk: then two thousand fill every buffer on the way."""

Host = SimulatedHost | ScriptedHost | RealHost
"""What a stage can have: a name, a url, a ledger, and ``async with``."""


async def nobody_listens(url: str) -> None:
    """Return once connections to ``url`` are refused."""
    while True:
        try:
            await ask(url, "GET", "/")
        except ConnectionRefusedError:
            return
        except (ConnectionError, Cut):  # it was in the backlog when the listener closed
            continue


class Records(list[GenerationRecord]):
    """Every record of a gateway, as it is made."""

    def __init__(self) -> None:
        super().__init__()
        self._waiters: list[asyncio.Future[None]] = []

    def append(self, record: GenerationRecord) -> None:
        super().append(record)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, count: int) -> list[GenerationRecord]:
        """All records, once there are ``count``."""
        async with asyncio.timeout(SECONDS):
            while len(self) < count:
                self._waiters.append(asyncio.get_running_loop().create_future())
                await self._waiters[-1]
        return list(self)

    async def of(self, session: str) -> GenerationRecord:
        """The one record of a session, once it is there."""
        while True:
            found = [record for record in self if record.session == session]
            if found:
                assert len(found) == 1
                return found[0]
            await self.until(len(self) + 1)


class Sample(NamedTuple):
    """One value at /metrics."""

    name: str
    labels: dict[str, str]
    value: float


class Client(Connection):
    """A connection on which anything can be written, and which can be slow to read."""

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str, receive_bytes: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """A connection to ``url``; the kernel takes in no more than about ``receive_bytes`` that nobody has read."""
        parts = urlsplit(url)
        unix = parts.scheme == "unix"
        family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in str(parts.hostname) else socket.AF_INET
        sock = socket.socket(family)
        sock.setblocking(False)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(sock, parts.path if unix else (parts.hostname, parts.port))
        limit = receive_bytes or 2**20
        if unix:
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=limit)
        else:
            named = parts.hostname if tls else None
            reader, writer = await asyncio.open_connection(sock=sock, limit=limit, ssl=tls, server_hostname=named)
        client = cls(reader, writer)
        try:
            yield client
        finally:
            await client.close()

    async def write(self, data: bytes, method: str = "POST") -> None:
        """Send bytes as they are; ``answer`` then takes them for a request of that method."""
        self._method = method
        self._writer.write(data)
        await self._writer.drain()

    async def leave(self, how: str) -> None:
        """Go away: "reset", or close politely."""
        if how == "reset":
            self.reset()
        else:
            await self.close()


class Stage:
    """One running gateway and its hosts."""

    def __init__(self, gateway: Gateway, hosts: tuple[Host, ...], log: Path) -> None:
        self.gateway = gateway
        self.hosts = hosts
        self.url = gateway.url
        self.desk = str(gateway.listeners._all[-1])  # where everything is served
        self.tls: ssl.SSLContext | None = None  # what its clients trust, where it speaks TLS
        self.records = Records()
        gateway.records = self.records
        self.log = log
        self.exceptions = 0  # that are in the log on purpose
        self.key = ""  # the operator's, where one is needed
        self._running = True
        self._desk = contextlib.AsyncExitStack()
        self._operator: Client | None = None

    def __getitem__(self, name: str) -> Any:
        return next(host for host in self.hosts if host.name == name)

    # -- as a client ------------------------------------------------------------------------------------------------------------

    async def ask(self, call: Call) -> Answer:
        """The answer to a request on a connection of its own."""
        return await ask(self.url, "POST", call.path, call.body, call.headers, self.tls)

    @contextlib.asynccontextmanager
    async def begun(self, call: Call, session: str = "", receive_bytes: int = 0) -> AsyncIterator[Client]:
        """A request that has been sent and whose answer nobody has read."""
        async with Client.to(self.url, receive_bytes, tls=self.tls) as client:
            headers = call.headers | ({"X-Corral-Session": session} if session else {})
            await client.send("POST", call.path, call.body, headers)
            yield client

    async def get(self, path: str) -> Any:
        """The JSON that a GET answers."""
        return json.loads((await ask(self.url, "GET", path, tls=self.tls)).body)

    def narrow(self, send_bytes: int) -> None:
        """On connections made from now on the kernel takes about so much for clients that do not read; the rest waits in the gateway."""
        site = self.gateway.listeners._all[0].site
        assert site is not None
        for each in site._server.sockets:  # type: ignore[union-attr]
            with socket.socket(fileno=os.dup(each.fileno())) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)

    # -- as an operator ---------------------------------------------------------------------------------------------------------

    async def operate(self, method: str, path: str) -> Answer:
        """An operator's request, on the one connection that the operator keeps."""
        if self._operator is None:
            self._operator = await self._desk.enter_async_context(
                Client.to(self.desk, tls=self.tls if self.desk.startswith("https") else None)
            )
        await self._operator.send(method, path, b"", {"Authorization": f"Bearer {self.key}"} if self.key else {})
        return await self._operator.answer()

    async def in_flight(self) -> list[dict[str, Any]]:
        """The rows of GET /api/generations."""
        rows: list[dict[str, Any]] = json.loads((await self.operate("GET", "/api/generations")).body)["generations"]
        return rows

    async def until(self, true: Callable[[list[dict[str, Any]]], Any]) -> Any:
        """What ``true`` says of GET /api/generations, once it is anything; after QUICK answers it is asked less often, for whoever is asked has less time."""
        async with asyncio.timeout(SECONDS):
            for _ in range(QUICK):
                if found := true(await self.in_flight()):
                    return found
            while not (found := true(await self.in_flight())):
                await pause(LOOK_SECONDS)
        return found

    async def row(self, session: str, phase: str) -> dict[str, Any]:
        """The row of a session, once it is in that phase."""
        row: dict[str, Any] = await self.until(
            lambda rows: next((row for row in rows if row["session"] == session and row["phase"] == phase), None)
        )
        return row

    async def polled(self, *names: str) -> None:
        """Have these hosts polled, or all, by a poll that begins now; return once the gateway knows what it saw."""
        await self.gateway.poller.refresh_changed(names or [host.name for host in self.hosts], SECONDS)

    async def metrics(self) -> list[Sample]:
        """All samples at /metrics that are not zero."""
        scraped = (await self.operate("GET", "/metrics")).body if self._running else self.gateway.metrics.render()
        return [
            Sample(name, dict(LABEL.findall(labels)), float(value))
            for name, labels, value in SAMPLE.findall(scraped.decode())
            if float(value)
        ]

    async def totals(self, name: str, *labels: str) -> Counter[Any]:
        """A metric's values at /metrics, summed by some of its labels; zeros left out."""
        return totals(await self.metrics(), name, *labels)

    async def held_up(self, sent: Callable[[], int]) -> int:
        """Wait until what a host has sent as fast as it can grows no more; how much that is."""
        before, same = -1, 0
        async with asyncio.timeout(SECONDS):
            while same < STILL:
                await self.operate("GET", "/healthz")
                now = sent()
                before, same = now, same + 1 if now == before else 0
        return before

    # -- the end ----------------------------------------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Wait until nothing is in flight, and see that nothing is left of what was."""
        gateway = self.gateway
        async with asyncio.timeout(SECONDS):
            await gateway.generations.idle()
        assert gateway.fleet.lease_count == 0
        assert len(gateway.generations) == 0
        assert len(gateway.admission) == 0
        for host in self.hosts:
            await host.ledger.wait_until(lambda host=host: host.ledger.in_flight == 0, SECONDS)  # type: ignore[misc]

    async def stop(self) -> None:
        """Stop the gateway, whatever is under way."""
        if self._running:
            self._running = False
            await self.gateway.stop()

    async def finish(self) -> None:
        """The end of every test: nothing is held, each generation left one record, one log line and its place in /metrics."""
        await self.quiet()
        await self._agree()
        await self._desk.aclose()
        await self.stop()
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").split("\n") if line]
        logged = [line["id"] for line in lines if line["event"] == "generation"]
        assert logged == [record.id for record in self.records]
        assert len(set(logged)) == len(logged)
        assert len([line for line in lines if "exception" in line]) == self.exceptions

    async def nothing_open(self) -> None:
        """Every gateway's pool is closed: what is open now, nobody owns."""
        for host in self.hosts:
            await host.ledger.wait_until(lambda host=host: host.ledger.connections_open == 0, SECONDS)  # type: ignore[misc]

    async def _agree(self) -> None:
        """The counters at /metrics are sums over the records."""
        samples, records = await self.metrics(), self.records
        attempts = [attempt for record in records for attempt in record.attempts]
        assert totals(samples, "corral_requests_total", "outcome") == Counter(record.outcome for record in records)
        assert totals(samples, "corral_upstream_attempts_total", "host", "outcome") == Counter(
            (attempt.host, attempt.outcome) for attempt in attempts
        )
        assert totals(samples, "corral_cancellations_total", "source", "phase") == Counter(
            (record.cancelled_by, record.phase) for record in records if record.cancelled_by
        )
        assert totals(samples, "corral_requests_in_flight") == totals(samples, "corral_queue_depth") == {}
        assert totals(samples, "corral_host_leases") == {}
        for kind in ("input", "output"):
            counted = sum(getattr(record.usage, f"{kind}_tokens") for record in records)
            assert totals(samples, "corral_tokens_total", "type")[kind] == counted


def totals(samples: Iterable[Sample], name: str, *labels: str) -> Counter[Any]:
    """The values of one metric, summed by some of its labels."""
    sums: Counter[Any] = Counter()
    for sample in samples:
        if sample.name == name:
            key = tuple(sample.labels[label] for label in labels)
            sums[key[0] if len(key) == 1 else key] += int(sample.value)
    return sums
