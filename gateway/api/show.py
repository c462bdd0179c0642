"""``POST /api/show``: what a model is, told by a host that has it."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from gateway.access.gate import Principal, permit
from gateway.api.answers import passed_on
from gateway.api.bodies import read_body
from gateway.api.caller import WHO
from gateway.config import RelayConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.names import canonical, full, is_name
from gateway.dialects.ollama import PLAIN
from gateway.dialects.read import agreed, model_named
from gateway.dialects.request import InferenceRequest, Kind
from gateway.errors import BadRequest, CorralError, ModelNotFound, NoHost
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.progress import by_host
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.fleet.targets import pinned
from gateway.relay.headers import inbound, to_host
from gateway.routing.filters import reaches
from gateway.routing.policy import Chance, Unroutable, choose

SHOW_SECONDS = 30.0  # a host reads it from its disk
RETRY_AFTER_SECONDS = 2.0


class Show:
    """Asks the host that the caller names, else the one that routing would choose, then the next one while hosts fail.

    ``refresh`` asks all for their models anew.
    """

    def __init__(
        self,
        fleet: Fleet,
        client: HostClient,
        clock: Callable[[], float],
        rng: Chance,
        refresh: Callable[[], Awaitable[None]],
        config: RelayConfig,
    ) -> None:
        self._fleet = fleet
        self._client = client
        self._clock = clock
        self._rng = rng
        self._refresh = refresh
        self._model_at_host = config.model_at_host
        self._body_limit = config.body_limit_bytes

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.post("/api/show", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """A host's answer, as it came. 404 if no host (or not the one that is named) has the model, 503 if those that have it fail."""
        who = request[WHO]
        pin = pinned(inbound(request.raw_headers).pin, self._fleet.names)
        body = await read_body(request, self._body_limit)
        named, at, body = model_named(body, self._fleet.names if self._model_at_host else ())
        if not is_name(named):
            raise BadRequest("invalid model name")
        wanted = _loading(named, body, agreed(pin, at), who)
        if not self._having(wanted):
            await self._refresh()
        having = self._having(wanted)
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
            having.discard(route.host)
        left_out = {rejected.host: rejected.why for rejected in route.rejected} | failed
        raise self._nobody(wanted, {host: why for host, why in left_out.items() if host in having})

    def _ask(self, name: str, request: web.Request, body: bytes) -> Awaitable[HostAnswer]:
        host = self._fleet.view(name, self._clock()).host
        return self._client.call(host, "POST", "/api/show", body, SHOW_SECONDS, to_host(request.raw_headers))

    def _snapshot(self) -> FleetSnapshot:
        return self._fleet.snapshot(self._clock())

    def _asked(self, wanted: InferenceRequest) -> list[HostView]:
        return [view for view in self._snapshot().hosts if wanted.pin in ("", view.name) and reaches(wanted, view.name)]

    def _having(self, wanted: InferenceRequest) -> set[str]:
        return {view.name for view in self._asked(wanted) if view.available and wanted.model in view.available}

    def _nobody(self, wanted: InferenceRequest, silent: dict[str, str]) -> CorralError:
        """``silent``: the hosts that have the model, and why they do not tell of it."""
        name = wanted.requested_model
        if silent:
            return NoHost(f"no host that has {name!r} can be asked: {by_host(silent)}", retry_after=RETRY_AFTER_SECONDS)
        where = f" on host {wanted.pin}" if wanted.pin else ""
        if all(view.available is None for view in self._asked(wanted)):
            return NoHost(f"it is not known yet which models there are{where}", retry_after=RETRY_AFTER_SECONDS)
        return ModelNotFound(PLAIN.format(full(name)) + where)


def _loading(named: str, body: bytes, pin: str, who: Principal) -> InferenceRequest:
    """The request that would load the model: where that goes, this goes. Raises NotAllowed for what the key is not good for."""
    model = canonical(named)
    permit(who, model, pin)
    endpoint = ENDPOINTS["/api/generate"]
    loading = InferenceRequest("show", endpoint, Kind.LOAD, named, model, False, (), 0, (), body, None, "", pin)
    return msgspec.structs.replace(loading, principal=who.name, hosts=who.hosts)
