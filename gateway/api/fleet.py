"""The fleet as one Ollama: merged lists, answered from the snapshot, so that no host can delay them."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
from aiohttp import web

from gateway.api.answers import JSON, Answer, json_answer
from gateway.api.inference import read_body
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.names import canonical, full, is_name
from gateway.dialects.ollama import PLAIN
from gateway.dialects.read import read
from gateway.errors import BadRequest, ModelNotFound, NoHost, NotFound
from gateway.fleet import merge
from gateway.fleet.host import HostView
from gateway.fleet.registry import Fleet
from gateway.fleet.targets import pinned
from gateway.record import Costs, Rejected, Route
from gateway.routing.policy import Chance, Unroutable, choose

RUNNING = b"Ollama is running"


class FleetViews:
    """Handlers of the merged lists and of the route explainer."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Callable[[], float],
        rng: Chance,
        body_limit_bytes: int,
        inventory_ttl_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._rng = rng
        self._body_limit = body_limit_bytes
        self._inventory_ttl = inventory_ttl_seconds

    def routes(self) -> list[web.RouteDef]:
        """Lists (with HEAD where Ollama has it) and ``POST /api/route/explain``."""
        return [
            web.get("/", self.root),
            web.get("/api/version", self.version),
            web.get("/api/tags", self.tags),
            web.get("/api/ps", self.ps, allow_head=False),
            web.get("/v1/models", self.models, allow_head=False),
            web.get("/v1/models/{model}", self.model, allow_head=False),
            web.post("/api/route/explain", self.explain),
        ]

    @property
    def _views(self) -> tuple[HostView, ...]:
        return self._fleet.snapshot(self._clock()).hosts

    @property
    def _tags(self) -> list[merge.Row]:
        snapshot = self._fleet.snapshot(self._clock())
        return merge.tags(snapshot.hosts, snapshot.taken_at - self._inventory_ttl)

    async def root(self, _request: web.Request) -> web.Response:
        """What clients take for a heartbeat."""
        return Answer(body=RUNNING, headers={"Content-Type": "text/plain; charset=utf-8"})

    async def version(self, _request: web.Request) -> web.Response:
        """The lowest version of the fleet."""
        version = merge.version(self._views)
        if version is None:
            raise NoHost("no host answers: its version is not known", retry_after=2.0)
        return json_answer({"version": version})

    async def tags(self, _request: web.Request) -> web.Response:
        """Every model that some host has."""
        return json_answer({"models": self._tags})

    async def ps(self, _request: web.Request) -> web.Response:
        """Every model that some host has in memory."""
        return json_answer({"models": merge.ps(self._views)})

    async def models(self, _request: web.Request) -> web.Response:
        """The OpenAI list; null when empty, as Ollama says it."""
        rows = merge.openai_models(self._tags)
        return json_answer({"object": "list", "data": rows or None}, content_type=JSON, newline=True)

    async def model(self, request: web.Request) -> web.Response:
        """One row of the OpenAI list."""
        wanted = request.match_info["model"]
        for row in self._tags:
            if canonical(str(row.get("name", ""))) == canonical(wanted):
                return json_answer(merge.openai_model(row) | {"id": wanted}, content_type=JSON, newline=True)
        status, text = (404, PLAIN.format(full(wanted))) if is_name(wanted) else (400, "invalid model name")
        body = ENDPOINTS["/v1/chat/completions"].error(status, text, ModelNotFound.code, "")
        return Answer(status=status, body=body.rstrip() + b"\n", headers={"Content-Type": JSON})

    async def explain(self, request: web.Request) -> web.Response:
        """Where a request would go and why. Takes any inference body; ``?path=/v1/…`` names its endpoint, else it is guessed."""
        body = await read_body(request, self._body_limit)
        path = request.query.get("path") or _endpoint_of(body)
        if path not in ENDPOINTS:
            raise NotFound(f"no inference endpoint {path!r}; known: {', '.join(ENDPOINTS)}")
        inference = await asyncio.to_thread(  # it may be large, or packed
            read,
            ENDPOINTS[path],
            body,
            "explain",
            content_type=request.headers.get("Content-Type", ""),
            content_encoding=request.headers.get("Content-Encoding", ""),
            pin=pinned(request.headers.get("X-Corral-Host", ""), self._fleet.names),
        )
        if not inference.model:
            raise BadRequest("model is required")
        snapshot = self._fleet.snapshot(self._clock())
        route = choose(inference, snapshot, self._rng)
        asked = {
            "endpoint": path,
            "model": inference.model,
            "kind": inference.kind,
            "prompt_tokens": inference.prompt_tokens,
            "runner_options": dict(inference.runner_options),
        }
        if isinstance(route, Unroutable):
            error = ModelNotFound("") if route.unknown_model else NoHost("")
            return json_answer(
                {
                    "request": asked,
                    "host": None,
                    "reason": error.code,
                    "costs": [],
                    "rejected": _left_out(route.rejected),
                }
            )
        return json_answer({"request": asked, **_explained(route, {view.name: view for view in snapshot.hosts})})


def _explained(route: Route, views: dict[str, HostView]) -> dict[str, Any]:
    return {
        "host": route.host,
        "reason": route.reason,
        "predicted_seconds": round(route.predicted_seconds, 4),
        "runner_up": route.runner_up,
        "costs": [_priced(costs, views[costs.host]) for costs in route.costs],
        "rejected": _left_out(route.rejected),
    }


def _priced(costs: Costs, view: HostView) -> dict[str, Any]:
    seconds = {key: round(value, 4) for key, value in msgspec.structs.asdict(costs).items() if key != "host"}
    return {"host": costs.host, **seconds, "leases": view.leases, "slots": view.host.slots, "health": view.health.state}


def _left_out(rejected: tuple[Rejected, ...]) -> list[dict[str, str]]:
    return [{"host": left_out.host, "code": left_out.code, "why": left_out.why} for left_out in rejected]


def _endpoint_of(body: bytes) -> str:
    try:
        keys = {str(key).lower() for key in orjson.loads(body)}
    except (orjson.JSONDecodeError, TypeError):
        raise BadRequest("the body must be a JSON object, as an inference endpoint takes it") from None
    if "messages" in keys:
        return "/v1/messages" if "max_tokens" in keys and "system" in keys else "/api/chat"
    return "/api/embed" if "input" in keys else "/api/generate"
