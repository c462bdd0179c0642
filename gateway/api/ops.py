"""For operators and their machines: metrics, liveness, readiness."""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec
from aiohttp import hdrs, web

from gateway.access.gate import Principal
from gateway.access.rights import Right
from gateway.api.answers import Answer
from gateway.api.handler import handler
from gateway.doc import doc
from gateway.fleet.health import State
from gateway.fleet.registry import Fleet
from gateway.store.engine import Database
from gateway.store.engine import State as DatabaseState
from gateway.tasks import pause

TEXT = "text/plain; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Storage = Annotated[
    Literal["none", "up", "degraded"],
    doc("`none`: nothing is to be kept; `up`; `degraded`: the database does not take it"),
]


class HostReadiness(msgspec.Struct, frozen=True):
    """A host, as far as readiness goes."""

    health: Annotated[State, doc("as in a host's row")]
    why: Annotated[str, doc("why it is not healthy; empty if it is, and for who may not look at hosts")]
    draining: Annotated[bool, doc("whether it takes no new requests")]


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests should be sent here."""

    ready: Annotated[bool, doc("whether at least one host can take requests and Corral is not stopping")]
    draining: Annotated[bool, doc("whether Corral is stopping")]
    storage: Storage
    hosts: Annotated[dict[str, HostReadiness], doc("every host, by name")]


class Storing(msgspec.Struct, frozen=True):
    """Whether what is to be kept is kept."""

    storage: Storage
    why: Annotated[str, doc("why the database does not take it; empty if it does")]


class Ops:
    """Handlers of ``/metrics``, ``/healthz`` and ``/readyz``."""

    def __init__(
        self,
        render: Callable[[bool], Iterator[bytes]],
        fleet: Fleet,
        clock: Callable[[], float],
        database: Database | None,
    ) -> None:
        self._render = render
        self._fleet = fleet
        self._clock = clock
        self._database = database
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """All GET."""
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.alive),
            web.get("/readyz", self.ready),
            web.get("/healthz/storage", self.storage),
        ]

    @handler(content_type=EXPOSITION, statuses={200: "All metrics (docs/metrics.md)."})
    async def metrics(self, request: web.Request) -> bytes | web.StreamResponse:
        """Everything that is counted and measured, in Prometheus' text format; in OpenMetrics, which has exemplars, where Accept names that."""
        if not wants_openmetrics(",".join(request.headers.getall(hdrs.ACCEPT, ()))):
            return await _in_pieces(self._render(False))
        return Answer(body=await _in_pieces(self._render(True)), headers={"Content-Type": OPENMETRICS})

    @handler(content_type=TEXT, statuses={200: "It does."})
    async def alive(self) -> bytes:
        """Whether the process answers."""
        return b"ok\n"

    @handler(statuses={200: "Send requests here.", 503: "Do not: no host can take them, or Corral is stopping."})
    async def ready(self, who: Principal) -> tuple[int, Readiness]:
        """Whether at least one host can take requests and the gateway is not stopping; in the body who and, to those who may look at hosts, why."""
        views = self._fleet.snapshot(self._clock()).hosts
        why = who.may(Right.WATCH)
        hosts = {
            view.name: HostReadiness(view.health.state, view.health.why if why else "", view.draining) for view in views
        }
        usable = any(
            view.available is not None and view.health.state is not State.EJECTED and not view.draining
            for view in views
        )
        ready = usable and not self.draining
        told = Readiness(ready=ready, draining=self.draining, storage=self._storage(), hosts=hosts)
        return (200 if ready else 503), told

    @handler(statuses={200: "All is kept that is to be kept.", 503: "The database does not take it."})
    async def storage(self) -> tuple[int, Storing]:
        """Whether the database takes what is to be kept, or nothing is to be kept; and why not."""
        storage = self._storage()
        why = self._database.why if self._database else ""
        return (503 if storage == "degraded" else 200), Storing(storage, why)

    def _storage(self) -> Storage:
        if self._database is None:
            return "none"
        return "up" if self._database.state is DatabaseState.UP else "degraded"


async def _in_pieces(pieces: Iterator[bytes]) -> bytes:
    """All of them, with a turn for everybody else between two: thousands of series hold up no stream."""
    said: list[bytes] = []
    for piece in pieces:
        said.append(piece)
        await pause(0.0)
    return b"".join(said)


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept names OpenMetrics, and not as what is not wanted. Prometheus names it first, browsers not at all."""
    for one in accept.split(","):
        name, *parameters = [part.strip().lower() for part in one.split(";")]
        if name == OPENMETRICS.partition(";")[0]:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False
