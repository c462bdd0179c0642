"""What Corral adds to Ollama's API, told to programs.

An OpenAPI document, made from the routes and from what ``api/handler.py`` knows of their handlers. Shapes come from the Structs that
these take and answer, words from docstrings and from ``doc``.
"""

import functools
import inspect
import sys
from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

import msgspec
from aiohttp import hdrs, web

from gateway.api.handler import PARAMETERS, Described, described, handler
from gateway.doc import doc
from gateway.errors import CorralError, Unauthorized

Json = dict[str, Any]
_IN = {"path": "path", "query": "query", "headers": "header"}
_JSON = "application/json"

ABOUT = """One address for a fleet of Ollama hosts. This describes what Corral adds. What Ollama has of its own answers as one Ollama
would (`docs/api.md` says where a fleet makes a difference), and Ollama describes it: {ollama}.

The headers that Corral takes and adds there (`X-Corral-Hosts`, `X-Corral-Job` and so on) are among `components/parameters` and
`components/headers`, with the paths that they are of.

Every GET is answered for HEAD too. A path that is not there is 404, a method that a path does not have 405, both in plain text.
"""

REQUEST_HEADERS = {
    "X-Corral-Detach": "Inference, pull, push and create: `true` lets it run on without its caller, as `?detach=true` does.",
    "X-Corral-Session": "Inference: a word of yours; it is in the live view and the log line. `/api/chat` and `/v1/chat/completions`: with the id of a "
    "kept session they are recorded into it.",
    "X-Corral-Priority": "Inference: `interactive`, `normal` (as without it) or `background`: whose turn it is where some have to wait.",
    "X-Corral-Deadline": "Inference: seconds until the first byte that the caller waits (of an answer in one piece: until all of it); at most 86400. Who would wait longer, "
    "as far as can be told, is refused at once or as soon as it is certain (503, `deadline_unmet`), at the latest then (504, `deadline`).",
    "X-Corral-Host": "Inference, `/api/show`, `/api/route/explain` and the account's paths: a host's name. The request goes there, or "
    "fails; 400 for a name that is not configured. For tools that can set no headers, `relay.model_at_host = true` lets a model be named `llama3@gpu1`, "
    "where models are managed too; a header that names another host is then a 400.",
    "X-Corral-User": "Every request with a key of `access.user_keys`: the person who asks through it, whose sessions and requests are then theirs (docs/access.md); from "
    "others it is a 403.",
    "traceparent": "Inference: the caller's place in a trace, by W3C's Trace Context; `tracestate` goes along.",
    "X-Corral-Hosts": "Managing models, as in `gpu1,gpu3`: these hosts and no others, whatever the rules say, draining or not; an unknown name is a 400 "
    "that lists the known ones, and no name at all is a 400 too.",
}
ANSWER_HEADERS = {
    "X-Corral-Generation": "Inference: the generation's id.",
    "X-Request-Id": "The caller's, if it sent one of up to 64 letters, digits, `.`, `_` and `-`; else of inference the generation's id, of other requests their trace's or one like it.",
    "traceresponse": "Inference whose trace will be kept: where it is.",
    "X-Corral-Host": "Inference once a host answered, and what one host was asked: that host.",
    "X-Corral-Num-Ctx": "Inference whose `num_ctx` was lowered to what is loaded, by a rule of `[[reloads]]`: what was sent in its place.",
    "X-Corral-Message": "Turns of sessions: the number of the answer.",
    "X-Corral-Gateways": "Of `/api/version`: the name of this gateway, and of those that its hosts lead to.",
    "X-Corral-Job": "Managing models: the job's id.",
    "X-Corral-Hosts": "Managing models: the hosts that were asked, with commas between them.",
    "X-Corral-Left-Out": "Managing models: hosts that it concerns but that are ejected or draining. They are not waited for; a pull can "
    "succeed without them, unless `X-Corral-Hosts` named them. If all are ejected, they are asked in spite of it; if all are draining, it is a 503.",
    "X-Corral-Error": "Every error of Corral's own: its code.",
    "X-Corral-Queue-Place": "Of a 503 `queue_full` or `deadline_unmet`: the place in the queue that it would have had, at most.",
    "X-Corral-Queue-Seconds": "The same: how long it would have waited for a host, as far as can be told.",
    "RateLimit-Policy": "Inference with a key that has limits: what each limit allows (docs/access.md), as draft-ietf-httpapi-ratelimit-headers-10 has it.",
    "RateLimit": "The same: what is left of each (`r`), and in how many seconds it is whole again (`t`). Under `/v1` `x-ratelimit-limit-requests`, `-remaining-requests`, "
    "`-reset-requests` and the same of `tokens` say so too; at `/v1/messages` `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` and the same of `tokens`.",
    "x-should-retry": "`false` of a 429 `insufficient_quota` and a 504 `deadline`: OpenAI's and Anthropic's clients, which try some errors again by themselves, do not.",
    "Retry-After": "A 429 or 503 of Corral's own, where it can help to try again: whole seconds after which to.",
}


class ErrorAnswer(msgspec.Struct, frozen=True):
    """An error of Corral's own."""

    error: Annotated[str, doc("what is wrong, for people; the code for programs is in `X-Corral-Error`")]


class OpenApi:
    """The handler of ``/openapi.json``. ``routes``: all there are when it is first asked for."""

    def __init__(self, routes: Iterable[web.RouteDef], prefix: str, version: str) -> None:
        self._routes = routes
        self._version = version
        self._prefix = prefix

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.get("/openapi.json", self.document)]

    @handler(statuses={200: "The document."})
    async def document(self) -> dict[str, Any]:
        """This document, in OpenAPI 3.1."""
        return self._document

    @functools.cached_property
    def _document(self) -> Json:
        return document(self._routes, self._prefix, self._version)


def document(routes: Iterable[web.RouteDef], prefix: str, version: str) -> Json:
    """The description of all ``routes`` whose handlers describe themselves; the others are named as Ollama's own."""
    known = [(route, described(route.handler)) for route in routes]
    endpoints = [(route, what) for route, what in known if what is not None]
    bodies = _Schemas({kind for _, what in endpoints for kind in (*what.answers, *_taken(what))} | {ErrorAnswer})
    paths: dict[str, Json] = {}
    for route, what in endpoints:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(what, bodies)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Corral",
            "version": version,
            "description": ABOUT.format(ollama=_listed(route for route, what in known if what is None)),
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": prefix or "/"}],
        "tags": _tags([what for _, what in endpoints]),
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key, where one is needed (docs/access.md).",
                }
            },
            "schemas": bodies.components,
            "parameters": {
                name: {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}
                for name, meaning in REQUEST_HEADERS.items()
            },
            "headers": {
                name: {
                    "description": meaning,
                    "schema": {"type": "integer", "minimum": 1} if name == hdrs.RETRY_AFTER else {"type": "string"},
                }
                for name, meaning in ANSWER_HEADERS.items()
            },
            "responses": {
                "Unauthorized": _failed([Unauthorized], bodies),
                "Forbidden": {
                    "description": "A web page of another site, or a Host header that is not let in: no body. Or `not_allowed`: a key that is not good for this.",
                    "headers": {"X-Corral-Error": {"$ref": "#/components/headers/X-Corral-Error"}},
                },
                "Internal": _failed([CorralError], bodies),
            },
        },
    }


class _Schemas:
    """The schemas of what bodies are made of. All are made together: only so each name is of one type."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        kinds = sorted((kind for kind in kinds if kind is not bytes), key=str)
        schemas, components = _components(kinds)
        self._of = dict(zip(kinds, schemas, strict=True)) | {bytes: {"type": "string"}}
        self.components = dict(sorted(components.items()))

    def of(self, *kinds: Any) -> Json:
        """The schema of a body that is one of ``kinds``."""
        schemas = [self._of[kind] for kind in kinds]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _components(kinds: Iterable[Any]) -> tuple[tuple[Json, ...], Json]:
    """The schemas of some types, and those of all that they are made of, by name."""
    told, shapes = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for shape in shapes.values():
        for field in shape.get("properties", {}).values():
            if field.keys() == {"enum"}:  # the tag of a kind, which no annotation can describe
                field["description"] = "which kind it is"
    return told, shapes


def _listed(routes: Iterable[web.RouteDef]) -> str:
    by_path: dict[str, list[str]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route.method)
    return ", ".join(f"`{' '.join(methods)} {path}`" for path, methods in by_path.items())


def _module(what: Described) -> str:
    return what.method.__module__.rpartition(".")[2]


def _tags(endpoints: Iterable[Described]) -> list[Json]:
    """A tag is a room: its file's name, and the first line of what it says of itself."""
    rooms = {_module(what): sys.modules[what.method.__module__] for what in endpoints}
    return [{"name": name, "description": _first_line(room)} for name, room in rooms.items()]


def _first_line(of: object) -> str:
    return (inspect.getdoc(of) or "").partition("\n")[0]


def _operation(what: Described, bodies: _Schemas) -> Json:
    summary, _, more = " ".join((inspect.getdoc(what.method) or "").split()).partition(". ")
    operation: Json = {
        "operationId": f"{_module(what)}_{what.method.__name__}",
        "tags": [_module(what)],
        "summary": summary.removesuffix("."),
    }
    if more:
        operation["description"] = more
    if parameters := [
        parameter for where in PARAMETERS if where in what.takes for parameter in _parameters(where, what.takes[where])
    ]:
        operation["parameters"] = parameters
    for body in _taken(what):
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": bodies.of(body)}}}
    answers = _answers(what, bodies) | _errors(what, bodies)
    operation["responses"] = {str(status): answers[status] for status in sorted(answers)}
    return operation


def _taken(what: Described) -> Iterable[Any]:
    """What a body should look like: the second word of ``Annotated[bytes, Struct]``, else the Struct itself; nothing without one."""
    if (body := what.takes.get("body")) is not None:
        yield get_args(body)[1] if get_origin(body) is Annotated else body


def _parameters(where: str, kind: type) -> Iterable[Json]:
    schema = _components([kind])[1][kind.__name__]
    for name, field in schema["properties"].items():
        if name in (hdrs.ACCEPT, hdrs.CONTENT_TYPE, hdrs.AUTHORIZATION):
            continue  # OpenAPI has other places for these
        yield {
            "name": name,
            "in": _IN[where],
            "required": name in schema["required"],
            "description": field["description"],
            "schema": {key: value for key, value in field.items() if key != "description"},
        }


def _answers(what: Described, bodies: _Schemas) -> dict[int, Json]:
    own = what.content_type.partition(";")[0]
    rows = [kind for kind in what.answers if inspect.isclass(kind) and issubclass(kind, msgspec.Struct)]
    texts = [kind for kind in what.answers if kind not in rows]
    content = {own: {"schema": bodies.of(*texts or rows)}}
    if texts and rows:  # a stream, or an object at once
        content["application/json"] = {"schema": bodies.of(*rows)}
    usual = " ".join(map(_first_line, rows))
    return {status: {"description": when or usual, "content": content} for status, when in what.statuses.items()}


def _errors(what: Described, bodies: _Schemas) -> dict[int, Json]:
    by_status: dict[int, list[type[CorralError]]] = {}
    for error in what.errors:
        by_status.setdefault(error.status, []).append(error)
    return {status: _failed(errors, bodies) for status, errors in by_status.items()} | {
        401: {"$ref": "#/components/responses/Unauthorized"},
        403: {"$ref": "#/components/responses/Forbidden"},
        500: {"$ref": "#/components/responses/Internal"},
    }


def _failed(errors: list[type[CorralError]], bodies: _Schemas) -> Json:
    headers: Json = {
        "X-Corral-Error": {
            "description": "Its code.",
            "required": True,
            "schema": {"type": "string", "enum": [error.code for error in errors]},
        }
    }
    if any(error.status in (429, 503) for error in errors):
        headers[hdrs.RETRY_AFTER] = {"$ref": f"#/components/headers/{hdrs.RETRY_AFTER}"}
    return {
        "description": " ".join(f"`{error.code}`: {_first_line(error)}" for error in errors),
        "headers": headers,
        "content": {_JSON: {"schema": bodies.of(ErrorAnswer)}},
    }
