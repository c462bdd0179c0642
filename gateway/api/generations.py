"""What is in flight, and how to stop it."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web

from gateway.api.handler import handler
from gateway.doc import doc
from gateway.errors import NotFound
from gateway.record import CancelSource, Phase, RouteReason
from gateway.relay.generations import Generation, Generations

STOPPED = "stopped by an operator"


class OneGeneration(msgspec.Struct, frozen=True):
    """Names a generation."""

    id: Annotated[str, doc("a generation's id, as `X-Corral-Generation` told it")]


class GenerationRow(msgspec.Struct, frozen=True):
    """One generation in flight."""

    id: Annotated[str, doc("unique, sortable by time")]
    session: Annotated[str | None, doc("the caller's word in `X-Corral-Session`")]
    model: Annotated[str, doc("the model's full name")]
    host: Annotated[str | None, doc("where it runs; null while it is queued")]
    phase: Annotated[
        Phase,
        doc(
            "`queued`; `connecting`; `prefill`: sent, nothing back yet: the host queues, loads or reads the prompt; "
            "`streaming`; `done`: the host is, the caller has not taken it all"
        ),
    ]
    dialect: Annotated[str, doc("`ollama`, `openai` or `anthropic`")]
    endpoint: Annotated[str, doc("the path that was called")]
    stream: Annotated[bool, doc("whether the answer comes in pieces")]
    client: Annotated[str, doc("the caller's address")]
    received_at: Annotated[str, doc("in UTC, ISO 8601", extra_json_schema={"format": "date-time"})]
    age_seconds: Annotated[float, doc("since it was received")]
    tokens: Annotated[int, doc("output tokens so far, as counted in passing", ge=0)]
    attempts: Annotated[int, doc("how many hosts were tried, with the present one", ge=0)]
    route_reason: Annotated[RouteReason | None, doc("why it went to this host; null while it is queued")]


class InFlight(msgspec.Struct, frozen=True):
    """All that is in flight."""

    generations: Annotated[list[GenerationRow], doc("oldest first")]


class GenerationStopped(msgspec.Struct, frozen=True):
    """A generation that ends now."""

    id: Annotated[str, doc("the generation's id")]
    cancelled: Annotated[bool, doc("true")]
    phase: Annotated[Phase, doc("where it was")]
    already: Annotated[bool, doc("whether it was ending before")]


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
            web.post("/api/chat/cancel/{id}", self.cancel),
        ]

    @handler()
    async def all(self) -> InFlight:
        """Everything in flight, oldest first."""
        return InFlight([self._row(generation) for generation in self._generations])

    @handler(NotFound)
    async def one(self, path: OneGeneration) -> GenerationRow:
        """One generation in flight."""
        return self._row(self._found(path.id))

    @handler(NotFound)
    async def stop(self, path: OneGeneration) -> GenerationStopped:
        """Stop a generation. Idempotent while it winds down; 404 once it is gone."""
        return self._stopped(path.id)

    @handler(NotFound)
    async def cancel(self, path: OneGeneration) -> GenerationStopped:
        """Stop a generation, as DELETE does: a path that some tools know."""
        return self._stopped(path.id)

    def _stopped(self, id_: str) -> GenerationStopped:
        generation = self._found(id_)
        phase = generation.phase
        stopped = generation.stop(CancelSource.OPERATOR, STOPPED)
        return GenerationStopped(generation.id, cancelled=True, phase=phase, already=not stopped)

    def _found(self, id_: str) -> Generation:
        generation = self._generations.get(id_)
        if generation is None:
            raise NotFound(f"no generation {id_[:64]!r} is in flight")
        return generation

    def _row(self, generation: Generation) -> GenerationRow:
        request = generation.request
        return GenerationRow(
            id=generation.id,
            session=request.session,
            model=request.model,
            host=generation.host,
            phase=generation.phase,
            dialect=request.endpoint.dialect,
            endpoint=request.endpoint.path,
            stream=request.stream,
            client=request.client,
            received_at=datetime.fromtimestamp(generation.received_at, UTC).isoformat(timespec="milliseconds"),
            age_seconds=round(self._generations.clock() - generation.received, 3),
            tokens=generation.tokens,
            attempts=len(generation.attempts) + (generation.phase is not Phase.QUEUED),
            route_reason=generation.route.reason if generation.route else None,
        )
