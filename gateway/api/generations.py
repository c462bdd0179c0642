"""What is in flight, and how to stop it."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.errors import NotFound
from gateway.record import CancelSource, Phase
from gateway.relay.generations import Generation, Generations

STOPPED = "stopped by an operator"


class GenerationsApi:
    """Handlers of ``/api/generations`` and ``/api/chat/cancel``."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    def routes(self) -> list[web.RouteDef]:
        """List, look at, stop."""
        return [
            web.get("/api/generations", self.all),
            web.get("/api/generations/{id}", self.one),
            web.delete("/api/generations/{id}", self.stop),
            web.post("/api/chat/cancel/{id}", self.stop),
        ]

    async def all(self, _request: web.Request) -> web.Response:
        """Everything in flight, oldest first."""
        return json_answer({"generations": [self._row(generation) for generation in self._generations]})

    async def one(self, request: web.Request) -> web.Response:
        """One generation in flight."""
        return json_answer(self._row(self._found(request)))

    async def stop(self, request: web.Request) -> web.Response:
        """Stop one. Idempotent while it winds down; 404 once it is gone."""
        generation = self._found(request)
        phase = generation.phase
        stopped = generation.stop(CancelSource.OPERATOR, STOPPED)
        return json_answer({"id": generation.id, "cancelled": True, "phase": phase, "already": not stopped})

    def _found(self, request: web.Request) -> Generation:
        id_ = request.match_info["id"]
        generation = self._generations.get(id_)
        if generation is None:
            raise NotFound(f"no generation {id_[:64]!r} is in flight")
        return generation

    def _row(self, generation: Generation) -> dict[str, Any]:
        request = generation.request
        return {
            "id": generation.id,
            "session": request.session,
            "model": request.model,
            "host": generation.host,
            "phase": generation.phase,
            "dialect": request.endpoint.dialect,
            "endpoint": request.endpoint.path,
            "stream": request.stream,
            "client": request.client,
            "received_at": datetime.fromtimestamp(generation.received_at, UTC).isoformat(timespec="milliseconds"),
            "age_seconds": round(self._generations.clock() - generation.received, 3),
            "tokens": generation.tokens,
            "attempts": len(generation.attempts) + (generation.phase is not Phase.QUEUED),
            "route_reason": generation.route.reason if generation.route else None,
        }
