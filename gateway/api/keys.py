"""Keys: made, listed, rotated, revoked, by whoever has the role admin."""

import os
import time
from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from aiohttp import web

from gateway.access.gate import Gate
from gateway.access.keys import Key, make
from gateway.access.rights import KeyRole
from gateway.api.handler import handler
from gateway.api.manners import ABOUT
from gateway.doc import doc
from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.keyconfig import check_limits, end_of
from gateway.store.keyring import Keyring

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
PATTERNS_MOST = 100
Patterns = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=256)]], msgspec.Meta(max_length=PATTERNS_MOST)
]


class OneKey(msgspec.Struct, frozen=True):
    """Names a key."""

    name: Annotated[str, doc("a key's name")]


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key shall be good for."""

    name: Annotated[str, doc("whose it is: in records, sessions and the log", pattern=NAME)]
    role: Annotated[KeyRole, doc("`user`; `operator`: models, hosts and what others run, too; `admin`: everything")] = (
        KeyRole.USER
    )
    models: Annotated[Patterns, doc("patterns like `llama3*` of models that a user may infer with; empty: all")] = []
    hosts: Annotated[Patterns, doc("patterns of hosts on which; empty: all")] = []
    expires: Annotated[date | None, doc("the day until whose end (UTC) it is good; null: for ever")] = None


class KeyRow(msgspec.Struct, frozen=True):
    """A key, without what it takes to use it."""

    name: Annotated[str, doc("whose it is")]
    role: Annotated[KeyRole, doc("what it is for")]
    models: Annotated[list[str], doc("patterns of models; empty: all")]
    hosts: Annotated[list[str], doc("patterns of hosts; empty: all")]
    expires_at: Annotated[str | None, doc("in UTC, ISO 8601; null: never")]
    created_at: Annotated[str | None, doc("in UTC, ISO 8601; null: it stands in the configuration")]


class MadeKey(msgspec.Struct, frozen=True):
    """A key that was made. It is shown this once."""

    key: Annotated[str, doc("the key itself: nobody can tell it again")]
    facts: Annotated[KeyRow, doc("what is kept of it")]


class KeyList(msgspec.Struct, frozen=True):
    """All keys."""

    keys: Annotated[list[KeyRow], doc("by name; first those of the configuration")]


class KeyRevoked(msgspec.Struct, frozen=True):
    """A key that is no good any more."""

    name: Annotated[str, doc("what was its name")]
    revoked: Annotated[bool, doc("true")] = True


class KeysApi:
    """Handlers of ``/api/keys``."""

    def __init__(self, gate: Gate, keyring: Keyring) -> None:
        self._gate = gate
        self._keyring = keyring

    def routes(self) -> list[web.RouteDef]:
        """List, make, rotate, revoke."""
        return [
            web.get("/api/keys", self.all),
            web.post("/api/keys", self.create),
            web.post("/api/keys/{name}/rotate", self.rotate),
            web.delete("/api/keys/{name}", self.revoke),
        ]

    @handler(StoreUnavailable)
    async def all(self) -> KeyList:
        """All keys, without what it takes to use them."""
        return KeyList([_row(key) for key in (*self._gate.configured, *await self._keyring.look())])

    @handler(Conflict, StoreUnavailable, statuses={201: ""})
    async def create(self, body: NewKey, request: web.Request) -> MadeKey:
        """Make a key; the answer is the only place where it is ever shown. It is good at once here, within a second elsewhere."""
        request[ABOUT] = (body.name,)
        try:
            check_limits(body.role, body.models, body.hosts)
        except ValueError as error:
            raise Conflict(str(error)) from None
        made, expires = make(os.urandom), end_of(body.expires.isoformat() if body.expires else "")
        kept = self._gate.kept_as(made)
        key = Key(body.name, body.role, kept, tuple(body.models), tuple(body.hosts), expires, time.time())
        if any(one.name == body.name for one in self._gate.configured):
            raise Conflict(f"the configuration has a key {body.name!r}")
        await self._keyring.add(key)
        return MadeKey(made, _row(key))

    @handler(NotFound, StoreUnavailable)
    async def rotate(self, path: OneKey) -> MadeKey:
        """Another key for the same name. The old one is no good from now on."""
        made = make(os.urandom)
        return MadeKey(made, _row(await self._keyring.rotate(path.name, self._gate.kept_as(made))))

    @handler(NotFound, StoreUnavailable)
    async def revoke(self, path: OneKey) -> KeyRevoked:
        """Make a key worthless, at once here and within a second elsewhere."""
        await self._keyring.revoke(path.name)
        return KeyRevoked(path.name)


def _row(key: Key) -> KeyRow:
    return KeyRow(key.name, key.role, list(key.models), list(key.hosts), _moment(key.expires), _moment(key.created))


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
