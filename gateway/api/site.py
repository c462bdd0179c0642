"""The web application: the paths of all parts, as they are and under the prefix, and how aiohttp serves them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.access.gate import Gate
from gateway.access.rights import behind
from gateway.api.caller import NEAR, Handler, KeyInPath
from gateway.api.door import Door, Doorway
from gateway.api.entrance import Entrance
from gateway.api.framing import looked_at
from gateway.api.handler import Part
from gateway.api.manners import under
from gateway.api.openapi import OpenApi

CUT_SECONDS = 2.0
"""How long streams that were cut at shutdown have for their last words."""

DELIVERY_SECONDS = 0.02


class Runner(web.AppRunner):
    """aiohttp's, with our door."""

    def __init__(self, app: web.Application, door: Door, **more: Any) -> None:
        super().__init__(app, **more)
        self._door = door

    async def _make_server(self) -> web.Server:
        return Doorway(await super()._make_server(), self._door)

    async def cleanup(self) -> None:
        """Close every connection."""
        self._door.close()
        await super().cleanup()


def runner(
    parts: Iterable[Part],
    middlewares: Iterable[Middleware],
    prefix: str,
    version: str,
    body_limit_bytes: int,
    door: Door,
    *,
    whole: bool,
) -> web.AppRunner:
    """Runs all of them; not ``whole``: without what is for operators. ``version``: of the description that ``/openapi.json`` gives."""
    app = web.Application(client_max_size=body_limit_bytes, middlewares=list(middlewares))
    routes = [route for part in parts for route in part.routes() if whole or not behind(route.method, route.path)]
    routes += OpenApi(routes, prefix, version).routes()
    app.add_routes([*routes, *under(prefix, routes)])
    return Runner(
        app,
        door,
        keepalive_timeout=door.config.idle_seconds,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=CUT_SECONDS,
        lingering_time=1.0,
    )


def dispatching(
    running: web.AppRunner, dispatch: Callable[[Handler, bool], Handler], gate: Gate, prefix: str, entrance: Entrance
) -> None:
    """Before the application: ``dispatch(otherwise, near)`` serves what it can without it, and a key is taken out of the path; and before that, the
    ``entrance``."""
    server = running.server
    assert server is not None
    framework = server.request_handler

    def way(near: bool) -> Handler:
        def marked(request: Any) -> Awaitable[web.StreamResponse]:
            request[NEAR] = near
            return framework(request)

        keyed = KeyInPath(gate, prefix, marked)
        keyed.again = dispatch(keyed, near)
        return keyed.again

    server.request_handler = looked_at(entrance.leading(way(True), way(False)), prefix)


async def delivered(running: web.AppRunner) -> None:
    """Wait until clients have taken what is written for them: a host may be done long before a slow client is."""
    server = running.server
    assert server is not None
    connections = server.connections
    while any(one.transport is not None and one.transport.get_write_buffer_size() for one in connections):
        await asyncio.sleep(DELIVERY_SECONDS)  # noqa: TID251 - nothing tells of it
        connections = server.connections
