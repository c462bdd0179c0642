"""For operators and their machines: metrics, liveness, readiness."""

from collections.abc import Callable

from aiohttp import web

from gateway.api.answers import Answer, json_answer
from gateway.fleet.health import State
from gateway.fleet.registry import Fleet
from gateway.store.engine import Database
from gateway.store.engine import State as Storage


class Ops:
    """Handlers of ``/metrics``, ``/healthz`` and ``/readyz``."""

    def __init__(
        self, render: Callable[[], bytes], fleet: Fleet, clock: Callable[[], float], database: Database | None
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

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus text format."""
        return Answer(body=self._render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def alive(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return Answer(text="ok\n")

    async def ready(self, _request: web.Request) -> web.Response:
        """200 while at least one host can take requests and the gateway is not stopping; who and why in the body."""
        views = self._fleet.snapshot(self._clock()).hosts
        hosts = {view.name: {"health": view.health.state, "why": view.health.why} for view in views}
        usable = any(
            view.available is not None and view.health.state is not State.EJECTED and not view.draining
            for view in views
        )
        ready = usable and not self.draining
        body = {"ready": ready, "draining": self.draining, "storage": self._storage(), "hosts": hosts}
        return json_answer(body, status=200 if ready else 503)

    async def storage(self, _request: web.Request) -> web.Response:
        """200 while the database takes what is to be kept, or nothing is to be kept; else 503, and why."""
        storage = self._storage()
        why = self._database.why if self._database else ""
        return json_answer({"storage": storage, "why": why}, status=503 if storage == "degraded" else 200)

    def _storage(self) -> str:
        if self._database is None:
            return "none"
        return "up" if self._database.state is Storage.UP else "degraded"
