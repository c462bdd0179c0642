"""Every request but plain inference, on its whole way: its place in a trace, its name, its line in the log (``log.access``)."""

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.caller import keyless
from gateway.api.manners import NAMED, bare
from gateway.api.middleware import SAYS_ITSELF, route_of
from gateway.telemetry.context import Contexts, current
from gateway.telemetry.lines import Visit

CLIENT_LEFT = 499
Clock = Callable[[], float]


def visits(
    contexts: Contexts, prefix: str, clock: Clock, wall: Clock, told: Callable[[Visit], None] | None
) -> Middleware:
    """A middleware around all others. ``told`` is told of each request that does not say so itself; None: nobody is."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers, began, status = request.headers, clock(), CLIENT_LEFT
        asked = (headers.get(name, "") for name in ("traceparent", "tracestate", "X-Request-Id"))
        trace = contexts.enter("", *asked)
        request[NAMED] = trace.request_id
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            if told is not None and not request.get(SAYS_ITSELF):
                seconds, path = clock() - began, keyless(request.rel_url.raw_path)
                route = bare(route_of(request), prefix)
                told(Visit(wall() - seconds, seconds, request.method, path, route, status, request.remote or ""))
            current.set(None)

    return middleware
