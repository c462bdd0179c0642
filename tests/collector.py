"""An OpenTelemetry collector on a real socket: takes OTLP over HTTP, and decodes what came."""

import asyncio
import gzip
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.sockets import until

SECONDS = 10.0
KINDS = {trace_pb2.Span.SPAN_KIND_SERVER: "server", trace_pb2.Span.SPAN_KIND_CLIENT: "client"}


class Got(NamedTuple):
    """One span as it arrived; ids in hex, times in Unix seconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start: float
    end: float
    attributes: dict[str, Any]
    events: list[tuple[str, float, dict[str, Any]]]
    error: str | None
    resource: dict[str, Any]


class Collector:
    """``async with`` starts it. ``status``: what it answers; ``held``: it answers nothing until that is set."""

    def __init__(self) -> None:
        self.spans: list[Got] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.held: asyncio.Event | None = None
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def until(self, true: Callable[[], Any]) -> None:
        """Return once ``true()``, looking after each request."""
        async with asyncio.timeout(SECONDS):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def trace(self, trace_id: str) -> list[Got]:
        """The spans of one trace, the request's own first, once they are there."""
        await self.until(lambda: any(span.trace_id == trace_id for span in self.spans))
        return sorted(
            (span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.kind == "client"
        )

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.path, dict(request.headers), body))
        self._changed.set()
        if self.held is not None:
            await self.held.wait()
        if self.status == 200:
            self.spans += decoded(gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body)
            self._changed.set()
        response = web.Response(status=self.status)
        response.force_close()  # no task of ours shall wait for another request
        return response

    async def release(self) -> None:
        """Answer those that are held up, and return when nobody waits any more."""
        assert self.held is not None
        self.held.set()
        assert self._runner is not None
        assert self._runner.server is not None
        server = self._runner.server
        await until(lambda: not server.connections, SECONDS)


def decoded(body: bytes) -> list[Got]:
    """The spans of one export."""
    message = ExportTraceServiceRequest.FromString(body)
    return [
        _got(span, _plain(resource.resource.attributes))
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _got(span: trace_pb2.Span, resource: dict[str, Any]) -> Got:
    return Got(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        attributes=_plain(span.attributes),
        events=[(event.name, event.time_unix_nano / 1e9, _plain(event.attributes)) for event in span.events],
        error=span.status.message if span.status.code == trace_pb2.Status.STATUS_CODE_ERROR else None,
        resource=resource,
    )


def _plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
