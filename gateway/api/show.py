"""``POST /api/show``: what a model is, told by a host that has it."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.api.answers import passed_on
from gateway.api.inference import read_body
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.names import canonical, full
from gateway.dialects.ollama import PLAIN
from gateway.dialects.read import model_named
from gateway.dialects.request import InferenceRequest, Kind
from gateway.errors import CorralError, ModelNotFound, NoHost
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.host import FleetSnapshot
from gateway.fleet.registry import Fleet
from gateway.relay.headers import to_host
from gateway.routing.policy import Chance, Unroutable, choose

SHOW_SECONDS = 30.0  # a host reads it from its disk
RETRY_AFTER_SECONDS = 2.0


class Show:
    """Asks the host that routing would choose, then the next one while hosts fail. ``refresh`` asks all for their models anew."""

    def __init__(
        self,
        fleet: Fleet,
        client: HostClient,
        clock: Callable[[], float],
        rng: Chance,
        refresh: Callable[[], Awaitable[None]],
        body_limit_bytes: int,
    ) -> None:
        self._fleet = fleet
        self._client = client
        self._clock = clock
        self._rng = rng
        self._refresh = refresh
        self._body_limit = body_limit_bytes

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.post("/api/show", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """A host's answer, as it came. 404 if no host has the model, 503 if those that have it fail."""
        body = await read_body(request, self._body_limit)
        named = model_named(body)
        wanted = _loading(named, body)
        if not self._having(wanted.model):
            await self._refresh()
        having = self._having(wanted.model)
        failed: dict[str, str] = {}
        tried: set[str] = set()
        while not isinstance(route := choose(wanted, self._snapshot(), self._rng, tried), Unroutable):
            tried.add(route.host)
            try:
                answer = await self._ask(route.host, request, body)
            except HostError as error:
                failed[route.host] = str(error)
                continue
            if answer.status != 404:
                return passed_on(answer, route.host)
            self._fleet.forget_model(route.host, wanted.model)
        raise self._nobody(named, {host: why for host, why in failed.items() if host in having})

    def _ask(self, name: str, request: web.Request, body: bytes) -> Awaitable[HostAnswer]:
        host = self._fleet.view(name, self._clock()).host
        return self._client.call(host, "POST", "/api/show", body, SHOW_SECONDS, to_host(request.raw_headers))

    def _snapshot(self) -> FleetSnapshot:
        return self._fleet.snapshot(self._clock())

    def _having(self, model: str) -> set[str]:
        return {view.name for view in self._snapshot().hosts if view.available and model in view.available}

    def _nobody(self, named: str, failed: dict[str, str]) -> CorralError:
        """``failed``: the hosts that have the model, and why they do not tell of it."""
        if failed:
            words = "; ".join(f"{host}: {why}" for host, why in failed.items())
            return NoHost(f"no host that has {named!r} answers: {words}", retry_after=RETRY_AFTER_SECONDS)
        if all(view.available is None for view in self._snapshot().hosts):
            return NoHost("no host has told its models yet", retry_after=RETRY_AFTER_SECONDS)
        return ModelNotFound(PLAIN.format(full(named)))


def _loading(named: str, body: bytes) -> InferenceRequest:
    """The request that would load the model: where that goes, this goes."""
    return InferenceRequest(
        "show", ENDPOINTS["/api/generate"], Kind.LOAD, named, canonical(named), False, (), 0, 0, body
    )
