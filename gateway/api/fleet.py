"""The fleet as one Ollama: merged lists, answered from the snapshot, so that no host can delay them."""

from collections.abc import Callable, Iterable

from aiohttp import web

from gateway.access.gate import Principal
from gateway.api.answers import JSON, Answer, json_answer, rendered
from gateway.api.caller import WHO
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.names import canonical, full, is_name
from gateway.dialects.ollama import PLAIN
from gateway.errors import BadRequest, ModelNotFound, NoHost
from gateway.fleet import merge
from gateway.fleet.client import GATEWAYS, HostClient
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView

RUNNING = b"Ollama is running"


class FleetViews:
    """Handlers of the merged lists. ``client`` knows which gateways the hosts lead to."""

    def __init__(
        self, fleet: Fleet, client: HostClient, clock: Callable[[], float], inventory_ttl_seconds: float
    ) -> None:
        self._fleet = fleet
        self._client = client
        self._clock = clock
        self._inventory_ttl = inventory_ttl_seconds

    def routes(self) -> list[web.RouteDef]:
        """Lists, with HEAD where Ollama has it."""
        return [
            web.get("/", self.root),
            web.get("/api/version", self.version),
            web.get("/api/tags", self.tags),
            web.get("/api/ps", self.ps, allow_head=False),
            web.get("/v1/models", self.models, allow_head=False),
            web.get("/v1/models/{model}", self.model, allow_head=False),
        ]

    @property
    def _views(self) -> tuple[HostView, ...]:
        return self._fleet.snapshot(self._clock()).hosts

    def _tags(self, who: Principal) -> list[merge.Row]:
        return _good_for(who, merge.tags(_reached(who, self._views), self._clock() - self._inventory_ttl))

    async def root(self, _request: web.Request) -> web.Response:
        """What clients take for a heartbeat."""
        return Answer(body=RUNNING, headers={"Content-Type": "text/plain; charset=utf-8"})

    async def version(self, _request: web.Request) -> web.Response:
        """The lowest version of the fleet; and in a header who answers, so that a gateway among its own hosts is noticed."""
        version = merge.version(self._views)
        unknown = NoHost("no host answers: its version is not known", retry_after=2.0)
        answer = rendered(unknown) if version is None else json_answer({"version": version})
        answer.headers[GATEWAYS] = ", ".join(self._client.gateways(self._fleet.hosts))
        return answer

    async def tags(self, request: web.Request) -> web.Response:
        """Every model that some host has, of those that the caller's key is good for."""
        return json_answer({"models": self._tags(request[WHO])})

    async def ps(self, request: web.Request) -> web.Response:
        """Every such model that some host has in memory."""
        who = request[WHO]
        return json_answer({"models": _good_for(who, merge.ps(_reached(who, self._views)))})

    async def models(self, request: web.Request) -> web.Response:
        """The OpenAI list; null when empty, as Ollama says it."""
        rows = merge.openai_models(self._tags(request[WHO]))
        return json_answer({"object": "list", "data": rows or None}, content_type=JSON, newline=True)

    async def model(self, request: web.Request) -> web.Response:
        """One row of the OpenAI list."""
        wanted = request.match_info["model"]
        for row in self._tags(request[WHO]):
            if canonical(str(row.get("name", ""))) == canonical(wanted):
                return json_answer(merge.openai_model(row) | {"id": wanted}, content_type=JSON, newline=True)
        error = ModelNotFound(PLAIN.format(full(wanted))) if is_name(wanted) else BadRequest("invalid model name")
        body = ENDPOINTS["/v1/chat/completions"].error(error.status, str(error), error.code, "")
        headers = {"Content-Type": JSON, "X-Corral-Error": error.code}
        return Answer(status=error.status, body=body.rstrip() + b"\n", headers=headers)


def _reached(who: Principal, views: Iterable[HostView]) -> tuple[HostView, ...]:
    return tuple(view for view in views if who.may_reach(view.name))


def _good_for(who: Principal, rows: list[merge.Row]) -> list[merge.Row]:
    return [row for row in rows if who.may_use(canonical(str(row.get("name", ""))))]
