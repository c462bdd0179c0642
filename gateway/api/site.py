"""The web application: the paths of all parts, as they are and under the prefix, and how aiohttp serves them."""

from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.api.handler import Part
from gateway.api.manners import under
from gateway.api.openapi import OpenApi

CUT_SECONDS = 2.0
"""How long streams that were cut at shutdown have for their last words."""


def runner(
    parts: Iterable[Part], middlewares: Iterable[Middleware], prefix: str, version: str, body_limit_bytes: int
) -> web.AppRunner:
    """Runs all of them. ``version``: of the description that ``/openapi.json`` gives."""
    app = web.Application(client_max_size=body_limit_bytes, middlewares=list(middlewares))
    routes = [route for part in parts for route in part.routes()]
    routes += OpenApi(routes, prefix, version).routes()
    app.add_routes([*routes, *under(prefix, routes)])
    return web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=CUT_SECONDS,
        lingering_time=1.0,
    )
