"""Whose key a request has, in its headers or before its path. A key in the path is taken out of it before anything else looks."""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from aiohttp import hdrs, web
from yarl import URL

from gateway.access.gate import USER, Gate, Principal
from gateway.access.keys import PREFIX

WHO = web.RequestKey("who", Principal)
"""Where a request keeps who asks."""

NEAR = web.RequestKey("near", bool)
"""Where a request keeps whether its caller is on this machine, and came by a way that only this machine has."""

GIVEN = web.RequestKey("given", str)
"""Where a request keeps the key that was before its path."""

_ANY = re.compile(rf"{PREFIX}[\w-]+")
Handler = Callable[[Any], Awaitable[web.StreamResponse]]


def who_asks(gate: Gate, request: web.BaseRequest, *, near: bool) -> Principal:
    """Raises Unauthorized for a key that is not good, BadRequest for two different ones; of a person behind a key as ``Gate.through`` does."""
    headers = request.headers
    authorizations, api_keys = headers.getall(hdrs.AUTHORIZATION, ()), headers.getall("x-api-key", ())
    given = request.get(GIVEN)
    if given is not None:  # tools that can set nothing else may send some word as a key
        api_keys = (*api_keys, given)
    who = gate.principal(authorizations, api_keys, near=near)
    users = headers.getall(USER, None)
    return who if users is None else gate.through(who, users)


def keyless(text: str) -> str:
    """The same without what may be a key: for the log."""
    if "%" in text and PREFIX in (plain := unquote(text, errors="backslashreplace")):
        text = plain
    return _ANY.sub(f"{PREFIX}…", text) if PREFIX in text else text


class KeyInPath:
    """A handler of all requests: those to ``/k/KEY/…`` go to ``again`` without it, the others to ``otherwise``. Where that is not enabled, such a path
    is not there."""

    def __init__(self, gate: Gate, prefix: str, otherwise: Handler) -> None:
        self._gate = gate
        self._otherwise = otherwise
        self.again = otherwise
        self._form = re.compile(rf"({re.escape(prefix)})?/k/({PREFIX}[\w-]+)(?=[/?]|\Z)")

    def __call__(self, request: Any) -> Awaitable[web.StreamResponse]:
        found = self._form.match(request.raw_path) if PREFIX in request.raw_path else None
        if found is None or GIVEN in request:
            return self._otherwise(request)
        before, key = found[1] or "", found[2]
        rest = request.raw_path[found.end() :]
        path = before + (rest if rest.startswith("/") else f"/{rest}")
        if not self._gate.key_in_path:
            return self._otherwise(request.clone(rel_url=URL("/k/not-enabled", encoded=True)))
        kept = request.clone(rel_url=URL(path, encoded=True))
        kept._transport_peername = request._transport_peername
        kept[GIVEN] = key
        return self.again(kept)
