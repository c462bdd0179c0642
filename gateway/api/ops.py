"""For operators and their machines: metrics, liveness, readiness."""

from collections.abc import Callable

from aiohttp import web

from gateway.api.answers import Answer, json_answer
from gateway.fleet.health import State
from gateway.fleet.registry import Fleet


class Ops:
    """Handlers of ``/metrics``, ``/healthz`` and ``/readyz``."""

    def __init__(self, render: Callable[[], bytes], fleet: Fleet, clock: Callable[[], float]) -> None:
        self._render = render
        self._fleet = fleet
        self._clock = clock
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """All GET."""
        return [web.get("/metrics", self.metrics), web.get("/healthz", self.alive), web.get("/readyz", self.ready)]

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
        body = {"ready": ready, "draining": self.draining, "hosts": hosts}
        return json_answer(body, status=200 if ready else 503)
