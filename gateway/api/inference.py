"""The inference endpoints, all dialects: read, track, relay."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from gateway.api.errors import rendered
from gateway.api.sinks import ResponseSink, TransportSink
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.request import Endpoint, InferenceRequest, Kind, read
from gateway.errors import CorralError, ShuttingDown, TooLarge
from gateway.fleet.client import HostAnswer
from gateway.relay.generations import Generations
from gateway.relay.relay import Inbound, Relay

THREAD_BYTES = 1024 * 1024  # reading a larger body takes milliseconds: not on the loop
Unload = Callable[[InferenceRequest], Awaitable[HostAnswer]]
Rejected = Callable[[str], None]


class Inference:
    """Handlers for all inference endpoints. ``draining`` makes them refuse new work."""

    def __init__(
        self,
        relay: Relay,
        generations: Generations,
        unload: Unload,
        rejected: Rejected,
        rng: random.Random,
        body_limit_bytes: int,
    ) -> None:
        self._relay = relay
        self._generations = generations
        self._unload = unload
        self._rejected = rejected
        self._rng = rng
        self._body_limit = body_limit_bytes
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """One POST route an endpoint."""
        return [web.post(path, self._handler(endpoint)) for path, endpoint in ENDPOINTS.items()]

    def new_id(self) -> str:
        """24 hex digits, sortable by time: milliseconds, then chance."""
        return f"{int(self._generations.wall() * 1000):011x}{self._rng.getrandbits(52):013x}"

    def _handler(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            received = self._generations.clock()
            id_ = self.new_id()
            try:
                inference = await self._read(request, endpoint, id_)
                if inference.kind is Kind.UNLOAD:
                    return _answered(await self._unload(inference), id_)
            except CorralError as error:
                self._rejected(error.code)
                return rendered(error, endpoint, id_)
            return await self._relayed(request, inference, received)

        return handle

    async def _read(self, request: web.Request, endpoint: Endpoint, id_: str) -> InferenceRequest:
        if self.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        body = await read_body(request, self._body_limit)
        headers = request.headers
        context = partial(
            read,
            endpoint,
            body,
            id_,
            content_type=headers.get("Content-Type", ""),
            content_encoding=headers.get("Content-Encoding", ""),
            session=headers.get("X-Corral-Session"),
            client=request.remote or "",
        )
        return await asyncio.to_thread(context) if len(body) > THREAD_BYTES else context()

    async def _relayed(self, request: web.Request, inference: InferenceRequest, received: float) -> web.StreamResponse:
        inbound = Inbound(request.raw_headers, request.rel_url.raw_query_string)
        sink: TransportSink | ResponseSink
        sink = (
            TransportSink(request, inference.id)
            if TransportSink.suits(request)
            else ResponseSink(request, inference.id)
        )
        try:
            with self._generations.track(inference, received) as generation:
                await self._relay.run(generation, inbound, sink)
        except CorralError as error:
            return rendered(error, inference.endpoint, inference.id)
        return sink.response() if isinstance(sink, TransportSink) else await sink.response()


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """The whole body. Raises TooLarge, before reading where the length is told."""
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(f"the body is over {limit_bytes} bytes")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body is over {limit_bytes} bytes") from None


def _answered(answer: HostAnswer, id_: str) -> web.Response:
    headers = {"Content-Type": answer.content_type, "X-Corral-Generation": id_}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
