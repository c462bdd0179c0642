"""Answers of our own: JSON, plain text, and errors in the dialect of the path that was called."""

import html
import json
import math
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
import orjson
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from gateway.dialects.ollama import error_body
from gateway.dialects.request import Endpoint
from gateway.errors import CorralError
from gateway.fleet.client import HostAnswer

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"
_REASONS = {499: "Client Closed Request"}
_COUNTED_BYTES = 2048  # Go's server counts an answer up to here, and sends a longer one chunked


class Streamed(web.StreamResponse):
    """A response that does not tell what it was made with: Ollama's have no Server header."""

    async def _write_headers(self) -> None:
        self.headers.popall("Server", None)
        await super()._write_headers()


class Answer(Streamed, web.Response):
    """A whole answer, framed as Ollama's are."""

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        if isinstance(self.body, bytes) and len(self.body) > _COUNTED_BYTES and request.version >= HttpVersion11:
            self.enable_chunked_encoding()
        return await super()._start(request)


def json_answer(value: Any, *, status: int = 200, content_type: str = JSON_UTF8, newline: bool = False) -> Answer:
    """``value``, Structs among it, as JSON. ``newline``: with a newline at the end, as Ollama's /v1 answers have it."""
    try:
        body = orjson.dumps(value, default=_plain, option=orjson.OPT_APPEND_NEWLINE if newline else None)
    except TypeError:  # half a character, a huge number, deep nesting, in what others chose: JSON can still say it
        body = json.dumps(value, default=_plain).encode() + (b"\n" if newline else b"")
    return Answer(status=status, body=body, headers={"Content-Type": content_type})


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else msgspec.structs.asdict(value)


def type_of(answer: HostAnswer) -> dict[str, str]:
    """A host's Content-Type as a header that can be written: hosts may say anything."""
    kind = answer.content_type
    return {"Content-Type": kind} if kind and kind.isprintable() else {}


def passed_on(answer: HostAnswer, host: str) -> Answer:
    """A host's small answer as it came: status, type and body."""
    headers = {"X-Corral-Host": host} | type_of(answer)
    return Answer(status=answer.status, body=answer.body or None, headers=headers)


def rendered(error: CorralError, endpoint: Endpoint | None = None, id_: str = "") -> Answer:
    """An error response; Ollama's shape where no dialect is given. Retry-After is in whole seconds, at least one."""
    write = endpoint.error if endpoint else error_body
    headers = {"X-Corral-Error": error.code}
    if id_ or error.generation:
        headers["X-Corral-Generation"] = id_ or error.generation
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.place is not None:
        headers["X-Corral-Queue-Place"] = str(error.place)
    if error.wait_seconds is not None:
        headers["X-Corral-Queue-Seconds"] = f"{error.wait_seconds:.1f}"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="corral"'
    if not error.again:
        headers["x-should-retry"] = "false"
    headers.update(error.headers)
    late = endpoint is not None and endpoint.dialect != "ollama" and error.status != 400  # error_end says why
    headers["Content-Type"] = JSON if late else JSON_UTF8
    answer = Answer(
        status=error.status,
        reason=_REASONS.get(error.status),
        body=write(error.status, error.message, error.code, id_),
        headers=headers,
    )
    if error.closes:
        answer.force_close()
    return answer


def plain(status: int, text: str, headers: dict[str, str] | None = None) -> Answer:
    """Ollama's plain-text errors, without a charset as it sends them."""
    return Answer(status=status, body=text.encode(), headers={"Content-Type": "text/plain", **(headers or {})})


def moved(status: int, location: str, *, told: bool) -> Answer:
    """A redirect; ``told``: with the short page that Go writes for a reader."""
    if not told:
        return Answer(status=status, headers={"Location": location})
    page = f'<a href="{html.escape(location)}">{HTTPStatus(status).phrase}</a>.\n\n'
    return Answer(
        status=status,
        body=page.encode(),
        headers={"Location": location, "Content-Type": "text/html; charset=utf-8"},
    )
