"""Sessions: made, listed, searched, changed, deleted, restored. Each belongs to who made it."""

from collections.abc import Callable, Collection
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.access.gate import Principal
from gateway.api.handler import handler
from gateway.api.stopping import Stopping
from gateway.doc import doc
from gateway.errors import BadRequest, NotFound, StoreUnavailable
from gateway.excerpts import QUERY_MOST
from gateway.messages import NAME_MOST, Kind, NewSession, Session, SessionChanges
from gateway.store.search import Hit
from gateway.store.session_store import SessionStore
from gateway.store.sessions import Listed, Place


class OneSession(msgspec.Struct, frozen=True, kw_only=True):
    """Names a session."""

    id: Annotated[str, doc("a session's id")]


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions."""

    archived: Annotated[bool, doc("those that are archived, instead of those that are not")] = False
    deleted: Annotated[bool, doc("those that are deleted and can be restored, archived or not")] = False
    pinned: Annotated[bool, doc("those that are pinned, or those that are not")] | UnsetType = UNSET
    model: (
        Annotated[str, doc("those that this model answers, named as they name it", max_length=NAME_MOST)] | UnsetType
    ) = UNSET
    kind: Annotated[Kind, doc("those of this kind")] | UnsetType = UNSET
    q: Annotated[str, doc("those whose title has these words, as a search finds them", max_length=QUERY_MOST)] = ""
    limit: Annotated[int, doc("how many at most", ge=1, le=200)] = 50
    after: Annotated[str, doc("`next` of the page before")] = ""


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    """Some sessions."""

    sessions: Annotated[list[Session], doc("pinned ones first, then what was written to last")]
    next: Annotated[str | None, doc("`?after=` it are more; null: these were the last")]


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to search for."""

    q: Annotated[
        str, doc("words: all must be there, the last may go on; capitals do not matter", max_length=QUERY_MOST)
    ]
    limit: Annotated[int, doc("how many at most", ge=1, le=50)] = 20
    before: Annotated[int, doc("`next` of the page before", ge=0, le=2**63 - 1)] | UnsetType = UNSET


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    sessions: Annotated[list[Session], doc("whose title has the words; on the first page alone")]
    messages: Annotated[list[Hit], doc("that have the words, the newest first; not while they are being written")]
    next: Annotated[int | None, doc("`?before=` it are more messages; null: these were the last")]


class DeleteQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How it is deleted."""

    restorable_seconds: Annotated[
        int, doc("for how long it can be restored before it is erased; 0: it is erased at once", ge=0, le=2_592_000)
    ] = 0


class SessionDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is no more, or that nobody finds any more."""

    id: Annotated[str, doc("its id")]
    deleted: Annotated[bool, doc("true")] = True
    cancelled: Annotated[int, doc("how many generations of it end, wherever they run", ge=0)]
    elsewhere: Annotated[
        int | None,
        doc(
            "how many of them run at other gateways; null: those cannot be reached now; answers that they write into it end within about a second all the same"
        ),
    ]


class SessionsApi:
    """Handlers of ``/api/sessions`` and ``/api/sessions/{id}``. ``hosts``: the names that a session may be pinned to."""

    def __init__(self, store: SessionStore, hosts: Callable[[], Collection[str]], stopping: Stopping) -> None:
        self._sessions = store.sessions
        self._search = store.search
        self._hosts = hosts
        self._stopping = stopping

    def routes(self) -> list[web.RouteDef]:
        """Make, look, search, change, delete, restore."""
        return [
            web.post("/api/sessions", self.create),
            web.get("/api/sessions", self.list),
            web.get("/api/search", self.search),
            web.get("/api/sessions/{id}", self.one),
            web.patch("/api/sessions/{id}", self.change),
            web.delete("/api/sessions/{id}", self.delete),
            web.post("/api/sessions/{id}/restore", self.restore),
        ]

    @handler(StoreUnavailable, statuses={201: ""})
    async def create(self, body: NewSession, who: Principal) -> Session:
        """A session without messages."""
        self._check_host(body.host)
        return await self._sessions.create(who.name, body)

    @handler(StoreUnavailable)
    async def list(self, query: ListQuery, who: Principal) -> SessionList:
        """Sessions, page by page: those for which all holds that is asked."""
        after = _read_place(query.after) if query.after else None
        asked = {name: value for name, value in msgspec.structs.asdict(query).items() if value is not UNSET}
        which = Listed(words=query.q, **{name: asked[name] for name in _FILTERS if name in asked})
        sessions, last = await self._sessions.page(who.name, which, after=after, limit=query.limit)
        return SessionList(sessions=sessions, next=_place(last) if last else None)

    @handler(StoreUnavailable)
    async def search(self, query: SearchQuery, who: Principal) -> Found:
        """Titles and messages that have all words. Signs only part words."""
        before = None if isinstance(query.before, UnsetType) else query.before
        titles = await self._search.titles(who.name, query.q, query.limit) if before is None else []
        hits, more = await self._search.messages(who.name, query.q, before, query.limit)
        return Found(sessions=titles, messages=hits, next=more)

    @handler(NotFound, StoreUnavailable)
    async def one(self, path: OneSession, who: Principal) -> Session:
        """One session, without its messages."""
        return await self._sessions.get(who.name, path.id)

    @handler(NotFound, StoreUnavailable)
    async def change(self, path: OneSession, body: SessionChanges, who: Principal) -> Session:
        """Change what the body names; the rest stays. The last writer wins."""
        if not isinstance(body.host, UnsetType):
            self._check_host(body.host)
        return await self._sessions.change(who.name, path.id, body)

    @handler(NotFound, StoreUnavailable)
    async def delete(self, path: OneSession, query: DeleteQuery, who: Principal) -> SessionDeleted:
        """Erase it with all its messages. What runs in it ends, at every gateway, and what was answered can be read nowhere any more. With
        `restorable_seconds` it is only hidden, and erased within seconds after that; asked again, its time begins anew.
        """
        await self._sessions.delete(who.name, path.id, query.restorable_seconds)
        ended = await self._stopping.erase(path.id)
        return SessionDeleted(id=path.id, cancelled=ended.total, elsewhere=ended.elsewhere)

    @handler(NotFound, StoreUnavailable)
    async def restore(self, path: OneSession, who: Principal) -> Session:
        """Bring back what was deleted with `restorable_seconds`, as far as it was when that ended it. One that is not deleted stays as it is."""
        return await self._sessions.restore(who.name, path.id)

    def _check_host(self, host: str | None) -> None:
        if host is not None and host not in self._hosts():
            raise BadRequest(f"host: none is named {host!r}; there are: {', '.join(self._hosts())}")


_FILTERS = ("archived", "deleted", "pinned", "model", "kind")


def _place(place: Place) -> str:
    pinned, updated_us, id_ = place
    return f"{pinned:d}-{updated_us}-{id_}"


def _read_place(text: str) -> Place:
    pinned, _, rest = text.partition("-")
    updated_us, _, id_ = rest.rpartition("-")
    try:
        place = (bool(int(pinned)), int(updated_us), id_)
    except ValueError:
        place = (False, 0, "")
    if _place(place) != text or "\0" in text or abs(place[1]) >= 2**63:
        raise BadRequest("query: after is not what `next` of a page said")
    return place
