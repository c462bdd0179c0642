"""Asking for a generation to be detached, and the 202 that says where it is."""

from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.errors import BadRequest
from gateway.relay.kept import KeptAnswer

_WORDS = {"1": True, "true": True, "0": False, "false": False, "": False}


def detaching(query: str, header: str) -> tuple[bool, str]:
    """Whether a request's query (or X-Corral-Detach) asks for it to be detached, and the query without that. Raises BadRequest."""
    pairs = parse_qsl(query, keep_blank_values=True)
    words = [value for name, value in pairs if name == "detach"]
    rest = urlencode([pair for pair in pairs if pair[0] != "detach"]) if words else query
    asked = False
    for word in (*(word or "true" for word in words), header):
        if word.strip().lower() not in _WORDS:
            raise BadRequest(f"detach is true or false, not {word[:64]!r}")
        asked = asked or _WORDS[word.strip().lower()]
    return asked, rest


def accepted(answer: KeptAnswer, prefix: str) -> web.Response:
    """202: where its answer can be read, and how it is stopped."""
    place = f"{prefix}/api/generations/{answer.id}"
    told = {"id": answer.id, "session": answer.session, "stream": f"{place}/stream", "cancel": place}
    response = json_answer(told, status=202)
    response.headers.update({"Location": f"{place}/stream", "X-Corral-Generation": answer.id})
    return response
