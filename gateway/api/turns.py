"""Turns of sessions: something is said, the model answers, both are kept."""

import json
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.access.gate import Principal
from gateway.api.answers import json_answer, rendered
from gateway.api.following import NDJSON, Following
from gateway.api.handler import handler
from gateway.api.messages import check_images
from gateway.api.sessions import OneSession
from gateway.dialects.lines import Framing
from gateway.doc import doc
from gateway.errors import (
    BadRequest,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    HostsFailed,
    ModelNotFound,
    NoHost,
    NotFound,
    OverBudget,
    QueueFull,
    RateLimited,
    ShuttingDown,
    StoreUnavailable,
)
from gateway.messages import Model, NewMessage, Number, Options, Role, Session
from gateway.record import Outcome
from gateway.relay.failures import broken_off
from gateway.relay.kept import KeptAnswer
from gateway.turns.chats import Begun, Chats, Question
from gateway.turns.spoken import Spoken
from gateway.turns.titles import Titles

PASSED_ON = ("think", "format", "tools", "keep_alive")
_KINDS = {
    200: "What `/api/chat` would answer: lines, or with `stream: false` one object. An error of the host's own keeps its status.",
    202: "With `detach`: where the answer can be read, and how it is stopped.",
}


_FAILURES = (
    BadRequest,
    NotFound,
    ModelNotFound,
    Cancelled,
    HostsFailed,
    NoHost,
    QueueFull,
    RateLimited,
    OverBudget,
    ShuttingDown,
    StoreUnavailable,
    DeadlineExceeded,
)


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A turn: what is said, and how it is to be answered."""

    message: Annotated[NewMessage | UnsetType, doc("what is said; without it the last question is answered again")] = (
        UNSET
    )
    parent: Annotated[
        Number | UnsetType | None,
        doc(
            "the message that this follows, where that is not the last one shown: another branch begins; null: from the very beginning. "
            "Without `message`: the question that is answered again"
        ),
    ] = UNSET
    model: Annotated[Model | None, doc("the model that answers; else the session's")] = None
    options: Options = {}
    stream: Annotated[bool, doc("whether the answer comes in pieces")] = True
    detach: Annotated[bool, doc("whether it runs on without its caller, who is told at once where to read it")] = False
    think: Annotated[bool | str | UnsetType | None, doc("as `/api/chat` takes it")] = UNSET
    format: Annotated[str | dict[str, Any] | UnsetType | None, doc("as `/api/chat` takes it")] = UNSET
    tools: Annotated[list[dict[str, Any]] | UnsetType | None, doc("as `/api/chat` takes them")] = UNSET
    keep_alive: Annotated[str | int | float | UnsetType | None, doc("as `/api/chat` takes it")] = UNSET


class TurnStarted(msgspec.Struct, frozen=True):
    """A turn that runs on by itself."""

    id: Annotated[str, doc("the generation's id")]
    session: Annotated[str, doc("the session's id")]
    message: Annotated[int, doc("the number of the answer in the session", ge=0)]
    stream: Annotated[str, doc("the path at which its answer can be read")]
    cancel: Annotated[str, doc("the path that stops it, by DELETE")]


class TurnAnswered(msgspec.Struct, frozen=True):
    """The last line of the answer, with all that was said. What else is in it is the host's."""

    message: Annotated[dict[str, Any], doc("`role` and `content`; `thinking` and `tool_calls` where there are any")]


class TitleWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who makes the title."""

    model: Annotated[Model | None, doc("the model; else `sessions.title_model`, else the session's")] = None


class TurnsApi:
    """Handlers of ``/api/sessions/{id}/chat`` and ``/title``."""

    def __init__(self, chats: Chats, titles: Titles) -> None:
        self._chats = chats
        self._titles = titles

    def routes(self) -> list[web.RouteDef]:
        """Say something, name it."""
        return [web.post("/api/sessions/{id}/chat", self.chat), web.post("/api/sessions/{id}/title", self.title)]

    @handler(Conflict, *_FAILURES, statuses=_KINDS, content_type=NDJSON)
    async def chat(
        self, path: OneSession, body: Said, request: web.Request, who: Principal
    ) -> web.StreamResponse | TurnAnswered | TurnStarted:
        """Say something in a session, and get the answer to all that fits into the model's context. Question and answer are kept, the
        answer also as far as it came when it is stopped or breaks off. `X-Corral-Message` is its number. One turn at a time: while
        one runs, 409 names its generation. A caller who leaves stops it, but for `detach`.
        """
        begun = await self._chats.ask(who.name, path.id, _question(body), request.remote or "")
        if body.detach:
            return _started(begun, request.path.removesuffix(f"/api/sessions/{path.id}/chat"), path.id)
        try:
            return await _answered(request, begun, stream=body.stream)
        finally:
            self._chats.left(begun.answer.id)  # all was read, or nobody is left who would

    @handler(*_FAILURES)
    async def title(self, path: OneSession, body: TitleWanted, who: Principal) -> Session:
        """Let a model make a title of how the session begins, whatever its title was. It waits until a slot is free that nobody else waits
        for; a caller who leaves stops it.
        """
        return await self._titles.make(who.name, path.id, body.model)


def _question(body: Said) -> Question:
    said = None if isinstance(body.message, UnsetType) else body.message
    if said is not None:
        if said.role is Role.ASSISTANT:
            raise BadRequest("message.role: it is the model that answers as `assistant`")
        check_images(said, "message.")
    given = {name: getattr(body, name) for name in PASSED_ON}
    fields = {name: value for name, value in given.items() if value is not UNSET}
    return Question(said, body.parent, body.model, body.options, fields)


def _started(begun: Begun, prefix: str, session: str) -> web.Response:
    place = f"{prefix}/api/generations/{begun.answer.id}"
    told = TurnStarted(begun.answer.id, session, begun.turn.answer, f"{place}/stream", place)
    response = json_answer(told, status=202)
    response.headers.update({"Location": told.stream, "X-Corral-Generation": told.id, **_about(begun)})
    return response


def _about(begun: Begun) -> dict[str, str]:
    return {"X-Corral-Message": str(begun.turn.answer)}


async def _answered(request: web.Request, begun: Begun, *, stream: bool) -> web.StreamResponse:
    following = Following(request, begun.answer, 0.0, _about(begun))
    with begun.answer.reader() as reader:
        try:
            if stream:
                return await following.as_it_came(reader)
            head = await reader.begun()
            if head is None or head.framing is Framing.SINGLE:  # an error
                return await following.whole(reader, head)
            spoken, last = Spoken(), b""
            async for batch in reader:
                for chunk in batch.chunks:
                    spoken.take(chunk)
                last = batch.chunks[-1]
        except ConnectionError:  # the reader has gone
            return following.response
    return _at_once(begun, spoken, last)


def _at_once(begun: Begun, spoken: Spoken, last: bytes) -> web.Response:
    """Lines as one object: the last one's fields, with all that was said."""
    answer: KeptAnswer = begun.answer
    assert answer.record is not None
    if answer.record.outcome is not Outcome.OK:
        response = rendered(broken_off(answer.record), answer.endpoint, answer.id)
    else:
        said: dict[str, Any] = {"role": "assistant", "content": spoken.content}
        said |= {"thinking": spoken.thinking} if spoken.thinking else {}
        said |= {"tool_calls": spoken.tool_calls} if spoken.tool_calls else {}
        response = json_answer(json.loads(last) | {"message": said})
    host = {"X-Corral-Host": answer.record.host} if answer.record.host else {}
    response.headers.update({"X-Corral-Generation": answer.id, **host, **_about(begun)})
    return response
