"""Several models in one session."""

from collections.abc import Callable, Collection
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gateway.access.gate import Principal
from gateway.api.answers import JSON_UTF8, Answer, json_answer
from gateway.api.following import NDJSON, Following
from gateway.api.handler import handler
from gateway.api.messages import check_said
from gateway.conversation.conversations import Conversations, Running, Wish
from gateway.conversation.events import Delta, Ended, Event, TurnBegan, TurnEnded
from gateway.conversation.order import TURNS_MOST
from gateway.doc import doc
from gateway.errors import BadRequest, Conflict, Gone, NotFound, ShuttingDown, StoreUnavailable, TooLarge
from gateway.messages import Content, Images, NewMessage, Title
from gateway.participants import PARTICIPANTS_LEAST, PARTICIPANTS_MOST, PHRASES_MOST, Failing, Mode, Participant, Phrase
from gateway.relay.chunks import Batch

_KINDS = {
    200: "Events, a line each: `start`, `said`, `turn_start`, `delta`, `turn_end`, `end`; or with `stream: false` one object.",
    202: "With `detach`: where the events can be read, and how it is stopped.",
}
_SETTINGS = ("participants", "mode", "judge", "stop", "on_error")
_decode = msgspec.json.Decoder(Event).decode


class ConversationAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who talks about what, and for how long."""

    participants: Annotated[
        Annotated[list[Participant], Meta(min_length=PARTICIPANTS_LEAST, max_length=PARTICIPANTS_MOST)] | UnsetType,
        doc("2 to 8; may be left out where `session` has some"),
    ] = UNSET
    mode: Annotated[
        Mode | UnsetType,
        doc(
            "`dialogue`: one after the other, each sees all that was said (so it is if nothing is asked for); `panel`: all at once, and again when each has "
            "seen what the others said; `compare`: all at once, none sees the others; `judge`: the same, and then `judge` decides"
        ),
    ] = UNSET
    topic: Annotated[Content | UnsetType, doc("what the user says first; may be left out where something was said")] = (
        UNSET
    )
    images: Annotated[Images | None, doc("in base64, with the topic")] = None
    judge: Annotated[Participant | UnsetType, doc("the model that decides, in mode `judge`")] = UNSET
    turns: Annotated[
        Annotated[int, Meta(ge=1, le=TURNS_MOST)] | None,
        doc("how often anybody speaks, all together; else twice each. Not where all answer once"),
    ] = None
    stop: Annotated[
        Annotated[list[Phrase], Meta(max_length=PHRASES_MOST)] | UnsetType,
        doc("who says one of these ends it with that turn"),
    ] = UNSET
    token_budget: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
        doc("tokens that all answers together may have; it also bounds each"),
    ] = None
    on_error: Annotated[
        Failing | UnsetType,
        doc("when one fails: `continue` with the others (so it is if nothing is asked for), or `stop`"),
    ] = UNSET
    session: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | None,
        doc("goes on in this session, with its participants; else a new one begins"),
    ] = None
    title: Annotated[Title, doc("of a new session; else how the topic begins")] = ""
    stream: Annotated[bool, doc("whether events come as they happen")] = True
    detach: Annotated[bool, doc("whether it runs on without its caller, who is told at once where to read it")] = False


class ConversationStarted(msgspec.Struct, frozen=True):
    """A conversation that runs on by itself."""

    id: Annotated[str, doc("the conversation's id while it runs")]
    session: Annotated[str, doc("the session's id")]
    stream: Annotated[str, doc("the path at which its events can be read")]
    cancel: Annotated[str, doc("the path that stops it, by DELETE")]


class TurnTold(msgspec.Struct, kw_only=True):
    """One turn, whole."""

    participant: Annotated[str, doc("whose it was")]
    content: Annotated[str, doc("what was said")] = ""
    thinking: Annotated[str, doc("what was thought before")] = ""
    message: Annotated[int, doc("the answer's number in the session", ge=0)]
    end: Annotated[TurnEnded | None, doc("how it ended")] = None


class ConversationTold(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that has ended."""

    id: Annotated[str, doc("what was its id")]
    session: Annotated[str, doc("the session's id")]
    turns: Annotated[list[TurnTold], doc("in their order")]
    end: Annotated[Ended, doc("how it ended")]


class ConversationsApi:
    """The handler of ``/api/chat/multi-model``. ``hosts``: the names that a participant may be pinned to."""

    def __init__(self, conversations: Conversations, hosts: Callable[[], Collection[str]]) -> None:
        self._conversations = conversations
        self._hosts = hosts

    def routes(self) -> list[web.RouteDef]:
        """Let them talk."""
        return [web.post("/api/chat/multi-model", self.talk)]

    @handler(
        BadRequest,
        NotFound,
        Conflict,
        Gone,
        TooLarge,
        ShuttingDown,
        StoreUnavailable,
        statuses=_KINDS,
        content_type=NDJSON,
    )
    async def talk(
        self, body: ConversationAsked, request: web.Request, who: Principal
    ) -> web.StreamResponse | ConversationStarted | ConversationTold:
        """Let several models talk with each other, answer side by side, or be judged. All is kept in a session like any other, in which the user
        can say something meanwhile (`POST /api/sessions/{id}/messages`) and which can go on with more turns. A caller who leaves stops it,
        but for `detach`.
        """
        self._check_hosts(body)
        running = await self._conversations.begin(who.name, _wish(body), request.remote or "")
        if body.detach:
            return _started(running, request.path.removesuffix("/api/chat/multi-model"))
        try:
            return await _followed(request, running, stream=body.stream)
        finally:
            self._conversations.left(running.feed.id)  # it has ended, or nobody is left who would listen

    def _check_hosts(self, body: ConversationAsked) -> None:
        named = [] if isinstance(body.participants, UnsetType) else list(enumerate(body.participants))
        for number, one in named:
            self._check_host(one, f"participants[{number}]")
        if not isinstance(body.judge, UnsetType):
            self._check_host(body.judge, "judge")

    def _check_host(self, one: Participant, where: str) -> None:
        if one.host is not None and one.host not in self._hosts():
            raise BadRequest(f"{where}.host: none is named {one.host!r}; there are: {', '.join(self._hosts())}")


def _wish(body: ConversationAsked) -> Wish:
    said = None
    if not isinstance(body.topic, UnsetType):
        said = NewMessage(content=body.topic, images=body.images)
        check_said(said)
    elif body.images:
        raise BadRequest("images: they come with a topic")
    if body.title and body.session:
        raise BadRequest("title: only a new session gets one here; PATCH it")
    given = {name: getattr(body, name) for name in _SETTINGS}
    changes = {name: value for name, value in given.items() if value is not UNSET}
    return Wish(body.session, changes, said, body.title, body.turns, body.token_budget)


def _started(running: Running, prefix: str) -> web.Response:
    place = f"{prefix}/api/generations/{running.feed.id}"
    told = ConversationStarted(running.feed.id, running.session.id, f"{place}/stream", place)
    response = json_answer(told, status=202)
    response.headers.update({"Location": told.stream, "X-Corral-Generation": told.id})
    return response


async def _followed(request: web.Request, running: Running, *, stream: bool) -> web.StreamResponse:
    following = Following(request, running.feed, 0.0)
    with running.feed.reader() as reader:
        try:
            if stream:
                return await following.as_it_came(reader)
            batches = [batch async for batch in reader]
        except ConnectionError:  # the reader has gone
            return following.response
    return _at_once(running, batches)


def _at_once(running: Running, batches: list[Batch]) -> web.Response:
    whole_from = max((number for number, batch in enumerate(batches) if batch.gone), default=0)
    events = [_decode(chunk) for batch in batches[whole_from:] for chunk in batch.chunks]
    first = next((event for event in events if isinstance(event, TurnBegan | Delta | TurnEnded | Ended)), None)
    if batches[whole_from].gone and not (isinstance(first, TurnBegan) and first.turn == 1):
        raise Gone(f"more was said than could be held for you: session {running.session.id} has all of it")
    turns: dict[int, TurnTold] = {}
    for event in events:
        if isinstance(event, TurnBegan):
            turns[event.turn] = TurnTold(participant=event.participant, message=event.message)
        elif isinstance(event, Delta):
            turns[event.turn].content += event.content
            turns[event.turn].thinking += event.thinking
        elif isinstance(event, TurnEnded):
            turns[event.turn].end = event
    end = events[-1]
    assert isinstance(end, Ended)
    told = ConversationTold(id=running.feed.id, session=running.session.id, turns=list(turns.values()), end=end)
    headers = {"Content-Type": JSON_UTF8, "X-Corral-Generation": running.feed.id}
    return Answer(body=msgspec.json.encode(told), headers=headers)  # which says what kind each event is
