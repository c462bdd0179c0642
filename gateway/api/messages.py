"""The messages of sessions: branches, exports, imports."""

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gateway.access.gate import Principal
from gateway.api.handler import handler
from gateway.api.sessions import OneSession
from gateway.depth import DEPTH_MOST, too_deep
from gateway.doc import doc
from gateway.errors import BadRequest, Conflict, NotFound, StoreUnavailable, TooLarge
from gateway.messages import NUMBER_MOST, Message, NewMessage, Role, Session
from gateway.openwebui import openwebui
from gateway.store.messages import Branch, History
from gateway.store.session_store import SessionStore
from gateway.transcripts import IMPORTED_MOST, Import, Incoming, Transcript, loaded, markdown, own

MARKDOWN = "text/markdown; charset=utf-8"


class MessagesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages."""

    leaf: (
        Annotated[int, doc("the last one; else that of the branch that is shown", ge=0, le=NUMBER_MOST)] | UnsetType
    ) = UNSET
    limit: Annotated[int, doc("how many at most, counted from the last", ge=1, le=1000)] = 200


class BranchList(msgspec.Struct, frozen=True, kw_only=True):
    """The branches of a session."""

    branches: Annotated[list[Branch], doc("the newest first, 200 at most")]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What has come in."""

    sessions: Annotated[list[Session], doc("as they are kept now, with ids of their own, in the order of the import")]


_ENTRIES = {
    "anyOf": [
        {"$ref": "#/components/schemas/Incoming"},
        {
            "type": "object",
            "required": ["chat"],
            "properties": {"chat": {"type": "object", "description": "Open WebUI's"}},
        },
    ]
}
Exports = Incoming | list[Annotated[Any, Meta(extra_json_schema=_ENTRIES)]]


class MessagesApi:
    """Handlers of ``/api/sessions/{id}/messages``, ``…/branches``, ``…/export`` and ``/api/import``. ``wall``: Unix seconds."""

    def __init__(self, store: SessionStore, wall: Callable[[], float]) -> None:
        self._messages = store.messages
        self._turns = store.turns
        self._transcripts = store.transcripts
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """Read, take out, bring in."""
        return [
            web.get("/api/sessions/{id}/messages", self.messages),
            web.post("/api/sessions/{id}/messages", self.say),
            web.get("/api/sessions/{id}/branches", self.branches),
            web.get("/api/sessions/{id}/export", self.export),
            web.get("/api/sessions/{id}/export.md", self.markdown),
            web.post("/api/import", self.bring_in),
        ]

    @handler(NotFound, StoreUnavailable)
    async def messages(self, path: OneSession, query: MessagesQuery, who: Principal) -> History:
        """The last messages of a branch, oldest first."""
        return await self._messages.told(who.name, path.id, query.leaf, query.limit)

    @handler(NotFound, Conflict, StoreUnavailable, statuses={201: ""})
    async def say(self, path: OneSession, body: NewMessage, who: Principal) -> Message:
        """Say something that nobody answers yet. Into a conversation of several models also while it runs: whoever speaks next sees it. While a
        turn of a chat is answered, 409 names its generation.
        """
        if body.role is not Role.USER or body.tool_calls or body.name:
            raise BadRequest("only the user can say something here, without role, name and tool_calls")
        check_said(body)
        return await self._turns.say(who.name, path.id, body)

    @handler(NotFound, StoreUnavailable)
    async def branches(self, path: OneSession, who: Principal) -> BranchList:
        """Every branch."""
        return BranchList(branches=await self._messages.branches(who.name, path.id))

    @handler(NotFound, StoreUnavailable)
    async def export(self, path: OneSession, who: Principal) -> Transcript:
        """All branches, for an import."""
        return await self._transcripts.export(who.name, path.id)

    @handler(NotFound, StoreUnavailable, statuses={200: "The branch in Markdown."}, content_type=MARKDOWN)
    async def markdown(self, path: OneSession, who: Principal) -> bytes:
        """The branch that is shown, for readers."""
        session = (await self._transcripts.export(who.name, path.id)).session
        branch = await self._messages.history(who.name, path.id)
        return (await asyncio.to_thread(markdown, session, branch)).encode()

    @handler(StoreUnavailable, statuses={201: ""})
    async def bring_in(self, body: Annotated[bytes, Exports], who: Principal) -> Imported:
        """Keep sessions that were exported: one export of Corral's, a list of them, or what Open WebUI exports. All or none. Bounded to
        2,000 sessions, 10,000 messages and 32 Mi characters at a time.
        """
        imports = await asyncio.to_thread(_read, body, datetime.fromtimestamp(self._wall(), UTC))
        return Imported(sessions=await self._transcripts.bring_in(who.name, imports))


def check_said(said: NewMessage) -> None:
    """Raises BadRequest where nothing is said, or what is no base64."""
    if not said.content.strip() and not said.images:
        raise BadRequest("there is nothing said")
    check_images(said)


def check_images(said: NewMessage, where: str = "") -> None:
    """Raises BadRequest for what is no base64."""
    for number, image in enumerate(said.images or ()):
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest(f"{where}images[{number}]: this is not base64") from None


def _read(body: bytes, now: datetime) -> list[Import]:
    imports: list[Import] = []
    for number, entry in enumerate(loaded(body)):
        imports.append(_one(entry, f"session {number}", now))
        if (count := sum(len(one.messages) for one in imports)) > IMPORTED_MOST:
            raise TooLarge(f"the import has over {IMPORTED_MOST} messages, {count} up to session {number}: split it")
    return imports


def _one(entry: Any, where: str, now: datetime) -> Import:
    if too_deep(entry):
        raise BadRequest(f"{where} is nested more than {DEPTH_MOST} deep")
    if isinstance(entry, dict) and "format" in entry:
        return own(entry, where)
    if isinstance(entry, dict) and "chat" in entry:
        return openwebui(entry, where, now)
    raise BadRequest(
        f'{where} is neither an export of Corral ("format": "corral.session") nor one of Open WebUI ("chat")'
    )
