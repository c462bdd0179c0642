"""Handlers of what Corral adds, made of typed methods. The signature is read twice: here, and by ``api/openapi.py``.

    class Path(msgspec.Struct):
        id: Annotated[str, doc("a job's id")]

    @handler(NotFound)
    async def one(self, path: Path) -> JobRow:
        '''One job.'''

What a method can take, by name:

``path``, ``query``, ``headers``   a Struct of that part of the request; who sends what does not fit, or a query that is not there, is told so (400)
``body``                           a Struct, read from JSON; or ``Annotated[bytes, Struct]``: the bytes, which should look like it
``request``                        the request, for what has no shape
``who``                            the Principal who asks

It answers a Struct or one of several kinds (``A | B``), sent as JSON, or text as ``bytes``; with several ``statuses`` a pair of the status
and that. A stream writes itself and is answered as ``web.StreamResponse``. The docstring's first sentence is the summary, the rest the description. What it raises is named to the decorator.
"""

import difflib
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from gateway.access.gate import Principal
from gateway.api.answers import JSON_UTF8, Answer, json_answer
from gateway.api.bodies import read_body
from gateway.api.caller import WHO
from gateway.complaint import in_words
from gateway.depth import DEPTH_MOST, too_deep
from gateway.errors import BadRequest, BodiesFull, CorralError, TooLarge

Method = Callable[..., Awaitable[Any]]
Handler = Callable[[Any, web.Request], Awaitable[web.StreamResponse]]
NAME_MOST = 64  # characters of an unknown parameter that are told
PARAMETERS = ("path", "query", "headers")
_TAKEN = (*PARAMETERS, "body", "request", "who")


class Part(Protocol):
    """What serves some of the paths."""

    def routes(self) -> list[web.RouteDef]:
        """Those paths."""


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of a handler. ``takes``: parameter → its type; ``answers``: the types of its rows, or ``bytes`` for text."""

    method: Method
    takes: Mapping[str, Any]
    answers: tuple[Any, ...]
    statuses: Mapping[int, str]
    content_type: str
    errors: tuple[type[CorralError], ...]


def handler(
    *errors: type[CorralError], statuses: Mapping[int, str] | None = None, content_type: str = JSON_UTF8
) -> Callable[[Method], Handler]:
    """Make a handler of a method that may raise ``errors``. ``statuses``: those of its answers, and when; 200 where not given."""

    def made(method: Method) -> Handler:
        what = _read(method, errors, statuses or {200: ""}, content_type)
        usual = next(iter(what.statuses))

        @functools.wraps(method)
        async def handle(part: Any, request: web.Request) -> web.StreamResponse:
            taken = {name: await _READERS[name](request, kind) for name, kind in what.takes.items()}
            answer = await method(part, **taken)
            if isinstance(answer, web.StreamResponse):
                return answer
            status, row = answer if isinstance(answer, tuple) else (usual, answer)
            if isinstance(row, bytes):
                return Answer(status=status, body=row, headers={"Content-Type": content_type})
            return json_answer(row, status=status, content_type=content_type)

        vars(handle)["described"] = what
        return handle

    return made


def described(of: object) -> Described | None:
    """What is known of a handler; None for one that ``handler`` did not make: Ollama's own endpoints."""
    return getattr(of, "described", None)


def _read(
    method: Method, errors: tuple[type[CorralError], ...], statuses: Mapping[int, str], content_type: str
) -> Described:
    takes = get_type_hints(method, include_extras=True)
    answer = takes.pop("return")
    if strange := takes.keys() - set(_TAKEN):
        raise TypeError(f"{method.__qualname__} takes {strange}; a handler can take {', '.join(_TAKEN)}")
    if get_origin(answer) is tuple:
        answer = get_args(answer)[1]
    answers = get_args(answer) if get_origin(answer) in (Union, UnionType) else (answer,)
    answers = tuple(bytes if one is web.StreamResponse else one for one in answers)
    implied: tuple[type[CorralError], ...] = ()
    if "body" in takes:
        implied = (BadRequest, TooLarge, BodiesFull)
    elif "query" in takes or "headers" in takes:
        implied = (BadRequest,)
    return Described(method, takes, answers, statuses, content_type, tuple(dict.fromkeys((*implied, *errors))))


async def _path(request: web.Request, kind: Any) -> Any:
    return _converted("path", request.match_info, kind)


async def _query(request: web.Request, kind: Any) -> Any:
    _refuse_unknown(request.query, _names(kind))
    return _converted("query", request.query, kind)


async def _headers(request: web.Request, kind: Any) -> Any:
    given = request.headers
    return _converted("headers", {name: ",".join(given.getall(name)) for name in _names(kind) if name in given}, kind)


async def _body(request: web.Request, kind: Any) -> Any:
    body = await read_body(request, request.client_max_size)
    if get_origin(kind) is Annotated:
        return body
    try:
        read = _decoded(body, kind)
        deep = too_deep(read)
    except RecursionError:
        deep = True
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"body: {in_words(error)}") from None
    if deep:
        raise BadRequest(f"body: nested more than {DEPTH_MOST} deep")
    return read


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
        return msgspec.convert(_whole(msgspec.json.decode(body)), kind)


def _whole(value: Any) -> Any:
    """The same, with 5 for 5.0: JSON knows one kind of numbers, msgspec two."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def _request(request: web.Request, _kind: Any) -> web.Request:
    return request


async def _who(request: web.Request, _kind: Any) -> Principal:
    return request[WHO]


_READERS = {"path": _path, "query": _query, "headers": _headers, "body": _body, "request": _request, "who": _who}


def _converted(where: str, given: Mapping[str, str], kind: Any) -> Any:
    try:
        return msgspec.convert({name: given[name] for name in _names(kind) if name in given}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{where}: {in_words(error)}") from None


def _refuse_unknown(query: Mapping[str, str], known: list[str]) -> None:
    """What would be passed over in silence: a mistyped filter is an answer about everything."""
    for name in query:
        if name not in known:
            near = difflib.get_close_matches(name[:NAME_MOST], known, n=1)
            more = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise BadRequest(f"unknown parameter {name[:NAME_MOST]!r}; {more}")


def _names(kind: Any) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]
