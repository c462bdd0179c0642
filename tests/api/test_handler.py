"""Handlers made of typed methods: what they are given, what they answer, and what they tell of themselves."""

import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.access.gate import Gate
from gateway.api.bodies import Bodies
from gateway.api.handler import described, handler
from gateway.api.manners import Manners
from gateway.api.middleware import boundary
from gateway.api.visits import visits
from gateway.config import HttpConfig, TracingConfig
from gateway.doc import doc
from gateway.errors import BadRequest, BodiesFull, NoHost, NotFound, TooLarge
from gateway.telemetry.context import Contexts
from tests.builders import config
from tests.contract.raw import Answer, ask


class Path(msgspec.Struct):
    """Of a thing."""

    id: Annotated[str, doc("its id")]


class Query(msgspec.Struct):
    """Which page."""

    limit: Annotated[int, doc("how many", ge=1, le=100)] = 10
    exact: Annotated[bool, doc("no guessing")] = False


class Headers(msgspec.Struct):
    """Whose."""

    session: Annotated[str, doc("a session")] = msgspec.field(name="X-Corral-Session", default="")


class Change(msgspec.Struct):
    """What to change."""

    title: Annotated[str, doc("the new title", max_length=5)]
    places: Annotated[list[int], doc("where to")] = []


class Row(msgspec.Struct):
    """What is answered."""

    said: Any


class Things:
    """Handlers of all sorts."""

    @handler(NotFound)
    async def all_of_it(self, path: Path, query: Query, headers: Headers, body: Change) -> Row:
        """Everything there is to take."""
        return Row([path.id, query.limit, query.exact, headers.session, body.title, *body.places])

    @handler()
    async def raw(self, request: web.Request, body: Annotated[bytes, Change]) -> Row:
        """The bytes as they are."""
        return Row(f"{request.method} {body!r}")

    @handler(statuses={201: "Made.", 200: "There already."})
    async def made(self, path: Path) -> tuple[int, Row]:
        """One of two statuses."""
        return (201 if path.id == "new" else 200), Row(None)

    @handler(NoHost, statuses={202: "Taken."})
    async def taken(self) -> Row | Path:
        """One of two kinds."""
        return Path("x")

    @handler(content_type="text/plain; charset=utf-8")
    async def text(self) -> bytes:
        """Not JSON."""
        return b"words"

    def routes(self) -> list[web.RouteDef]:
        """Each by its name."""
        names = ("all_of_it", "raw", "made", "taken", "text")
        return [web.post(f"/{name}/{{id}}", getattr(self, name)) for name in names]


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
async def asked() -> AsyncIterator[Ask]:
    """What a handler answers, over a socket and through the gateway's own boundary."""
    manners = Manners(HttpConfig(), "here", loopback=True)
    gate = Gate(time.time)
    gate.configure(config([], access={"anonymous": "full"}))
    app = web.Application(
        middlewares=[
            visits(Contexts(TracingConfig(), random.Random(1)), "", time.monotonic, time.time, None),
            boundary(manners, gate, lambda _: None, lambda *_: None, Bodies(2**20)),
        ],
        client_max_size=100,
    )
    app.add_routes(Things().routes())
    async with TestServer(app) as server:

        async def post(path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
            return await ask(str(server.make_url("/")), "POST", path, body, headers)

        yield post


async def test_what_a_method_takes(asked: Ask) -> None:
    """Each part of the request is read into its type, defaults included; header names are of any case."""
    path, session = "/all_of_it/1?limit=7&exact=true", {"x-corral-session": "s"}
    full = await asked(path, b'{"title": "new"}', session)
    assert (full.status, full.body) == (200, b'{"said":["1",7,true,"s","new"]}')
    assert full.get("Content-Type") == "application/json; charset=utf-8"
    assert (await asked("/all_of_it/1", b'{"title": "new"}')).body == b'{"said":["1",10,false,"","new"]}'
    twice = await asked(path, b'{"title": "new"}', {"X-Corral-Session": "s", "x-corral-session": "t"})
    assert json.loads(twice.body)["said"][3] == "s,t"


@pytest.mark.parametrize(
    ("query", "body", "said"),
    {
        "a word for a number": ("?limit=many", b'{"title": "a"}', "query: limit must be a whole number, not a text"),
        "a mistyped name": ("?limits=1", b'{"title": "a"}', "unknown parameter 'limits'; did you mean 'limit'?"),
        "a name of nothing": ("?q=1", b'{"title": "a"}', "unknown parameter 'q'; known: limit, exact"),
        "too much": ("?limit=101", b'{"title": "a"}', "query: limit must be at most 100"),
        "no JSON": ("", b"x", "body: not JSON: invalid character (byte 0)"),
        "nothing": ("", b"", "body: the JSON ends too soon"),
        "not UTF-8": ("", b'{"title": "\xff"}', "body: "),
        "a field that is missing": ("", b"{}", "body: title is missing"),
        "a field that is too long": ("", b'{"title": "abcdef"}', "body: title must have at most 5 characters"),
    }.values(),
)
async def test_what_does_not_fit(asked: Ask, query: str, body: bytes, said: str) -> None:
    """Is a 400 that says where and why."""
    answer = await asked(f"/all_of_it/1{query}", body)
    assert (answer.status, answer.get("X-Corral-Error")) == (400, "bad_request")
    assert json.loads(answer.body)["error"].startswith(said)


async def test_a_number_is_whole_that_is_written_with_a_point(asked: Ask) -> None:
    """JSON knows one kind of numbers; half a place there is not."""
    assert json.loads((await asked("/all_of_it/1", b'{"title": "a", "places": [5.0, 6]}')).body)["said"][4:] == [
        "a",
        5,
        6,
    ]
    refused = await asked("/all_of_it/1", b'{"title": "a", "places": [5.0, 6.5]}')
    assert "places[1] must be a whole number" in json.loads(refused.body)["error"]


async def test_a_body_that_is_too_large(asked: Ask) -> None:
    """Is a 413, whether it would be read or taken as it is."""
    for path in ("/all_of_it/1", "/raw/1"):
        answer = await asked(path, b" " * 101)
        assert (answer.status, answer.get("X-Corral-Error")) == (413, "too_large")


async def test_a_body_as_it_is(asked: Ask) -> None:
    """Bytes are not read at all."""
    assert (await asked("/raw/1", b"nonsense")).body == b'{"said":"POST b\'nonsense\'"}'


async def test_answers(asked: Ask) -> None:
    """A status that the method chose, the one that is declared, and text."""
    assert ((await asked("/made/new")).status, (await asked("/made/old")).status) == (201, 200)
    taken, text = await asked("/taken/1"), await asked("/text/1")
    assert (taken.status, taken.body) == (202, b'{"id":"x"}')
    assert (text.body, text.get("Content-Type")) == (b"words", "text/plain; charset=utf-8")


def test_what_is_known() -> None:
    """Types and errors are in the description; a body and parameters that can be wrong imply theirs."""
    known = {name: described(getattr(Things(), name)) for name in ("all_of_it", "made", "taken", "text")}
    assert all(known.values())
    errors = {name: what.errors for name, what in known.items() if what}
    assert errors == {
        "all_of_it": (BadRequest, TooLarge, BodiesFull, NotFound),
        "made": (),
        "taken": (NoHost,),
        "text": (),
    }
    answers = {name: what.answers for name, what in known.items() if what}
    assert answers == {"all_of_it": (Row,), "made": (Row,), "taken": (Row, Path), "text": (bytes,)}
    assert described(test_what_is_known) is None


def test_what_a_handler_cannot_take() -> None:
    """An unknown parameter is an error where it is written, not when it is asked for."""
    with pytest.raises(TypeError, match="qurey"):

        @handler()
        async def mistyped(self: Things, qurey: Query) -> Row:
            return Row(self)
