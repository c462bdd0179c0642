"""Errors as callers read them: in the dialect of the path they called."""

import math

from aiohttp import web

from gateway.dialects.ollama import error_body
from gateway.dialects.request import Endpoint
from gateway.errors import CorralError


def rendered(error: CorralError, endpoint: Endpoint | None = None, id_: str = "") -> web.Response:
    """An error response; Ollama's shape where no dialect is given. Retry-After is in whole seconds, at least one."""
    write = endpoint.error if endpoint else error_body
    headers = {"X-Corral-Error": error.code}
    if id_:
        headers["X-Corral-Generation"] = id_
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    content_type = (
        "application/json"
        if endpoint and error.status == 404 and endpoint.dialect != "ollama"
        else "application/json; charset=utf-8"
    )
    headers["Content-Type"] = content_type
    return web.Response(
        status=error.status,
        reason=_REASONS.get(error.status),
        body=write(error.status, error.message, error.code, id_),
        headers=headers,
    )


_REASONS = {499: "Client Closed Request"}


def plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """Ollama's plain-text errors, without a charset as it sends them."""
    return web.Response(status=status, body=text.encode(), headers={"Content-Type": "text/plain", **(headers or {})})
