"""Keys: made, listed, limited, rotated, revoked, by whoever has the role admin."""

import os
import time
from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.access.gate import Gate
from gateway.access.keys import Key, make
from gateway.access.limits import limits_of
from gateway.access.rights import KeyRole
from gateway.api.handler import handler
from gateway.api.manners import ABOUT
from gateway.dialects.urgency import in_words
from gateway.doc import doc
from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.keyconfig import (
    RATE_MOST,
    SHARE_LEAST,
    SHARE_MOST,
    TOKENS_MOST,
    PriorityWord,
    check_name,
    check_reach,
    end_to_come,
)
from gateway.store.keyring import Keyring

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}(?!\n)$"
BUDGET = r"^[0-9]{1,16}/(day|month)$"
PATTERNS_MOST = 100
Patterns = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=256)]], msgspec.Meta(max_length=PATTERNS_MOST)
]


class OneKey(msgspec.Struct, frozen=True):
    """Names a key."""

    name: Annotated[str, doc("a key's name")]


Rate = Annotated[int, msgspec.Meta(ge=0, le=RATE_MOST)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MOST)]
Budgets = Annotated[list[Annotated[str, msgspec.Meta(pattern=BUDGET)]], msgspec.Meta(max_length=2)]
Share = Annotated[float, msgspec.Meta(ge=SHARE_LEAST, le=SHARE_MOST)]
_RPM = doc("requests to models in any 60 seconds; 0: as many")
_TPM = doc("tokens, in and out, in any 60 seconds; 0: as many")
_CONCURRENCY = doc("requests that wait or run at a time; 0: as many")
_BUDGETS = doc("tokens of a day and of a month (UTC), like `1000000/day`; empty: as many")
_PRIORITY = doc("the most urgent that its requests can be, whatever they say")
_SHARE = doc("its weight where others wait too: 2 gets twice the seconds of 1")


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key shall be good for."""

    name: Annotated[str, doc("whose it is: in records, sessions and the log", pattern=NAME)]
    role: Annotated[KeyRole, doc("`user`; `operator`: models, hosts and what others run, too; `admin`: everything")] = (
        KeyRole.USER
    )
    models: Annotated[Patterns, doc("patterns like `llama3*` of models that a user may infer with; empty: all")] = []
    hosts: Annotated[Patterns, doc("patterns of hosts on which; empty: all")] = []
    expires: Annotated[date | None, doc("the day until whose end (UTC) it is good; null: for ever")] = None
    again: Annotated[
        bool, doc("also for a name whose key was revoked: its sessions and requests are the new holder's")
    ] = False
    rpm: Annotated[Rate, _RPM] = 0
    tpm: Annotated[Tokens, _TPM] = 0
    concurrency: Annotated[Rate, _CONCURRENCY] = 0
    budgets: Annotated[Budgets, _BUDGETS] = []
    priority: Annotated[PriorityWord, _PRIORITY] = "interactive"
    share: Annotated[Share, _SHARE] = 1.0


class OtherLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to be limited otherwise; what is left out stays as it is."""

    rpm: Annotated[Rate, _RPM] | UnsetType = UNSET
    tpm: Annotated[Tokens, _TPM] | UnsetType = UNSET
    concurrency: Annotated[Rate, _CONCURRENCY] | UnsetType = UNSET
    budgets: Annotated[Budgets, doc("these in place of all that there were; empty: as many tokens")] | UnsetType = UNSET
    priority: Annotated[PriorityWord, _PRIORITY] | UnsetType = UNSET
    share: Annotated[Share, _SHARE] | UnsetType = UNSET


class KeyRow(msgspec.Struct, frozen=True):
    """A key, without what it takes to use it."""

    name: Annotated[str, doc("whose it is")]
    role: Annotated[KeyRole, doc("what it is for")]
    models: Annotated[list[str], doc("patterns of models; empty: all")]
    hosts: Annotated[list[str], doc("patterns of hosts; empty: all")]
    expires_at: Annotated[str | None, doc("in UTC, ISO 8601; null: never")]
    created_at: Annotated[str | None, doc("in UTC, ISO 8601; null: it stands in the configuration")]
    revoked_at: Annotated[
        str | None, doc("in UTC, ISO 8601: since then it is no good, and its name is taken; null: it was not")
    ]
    rpm: Annotated[int, _RPM]
    tpm: Annotated[int, _TPM]
    concurrency: Annotated[int, _CONCURRENCY]
    budgets: Annotated[list[str], _BUDGETS]
    priority: Annotated[PriorityWord, _PRIORITY]
    share: Annotated[float, _SHARE]


class MadeKey(msgspec.Struct, frozen=True):
    """A key that was made. It is shown this once."""

    key: Annotated[str, doc("the key itself: nobody can tell it again")]
    facts: Annotated[KeyRow, doc("what is kept of it")]


class KeyList(msgspec.Struct, frozen=True):
    """All keys."""

    keys: Annotated[list[KeyRow], doc("by name, the revoked ones too; first those of the configuration")]


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
        """List, make, limit, rotate, revoke."""
        return [
            web.get("/api/keys", self.all),
            web.post("/api/keys", self.create),
            web.patch("/api/keys/{name}", self.limit),
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
            check_name(body.name, (one.name for one in self._gate.configured))
            expires = end_to_come(body.expires.isoformat() if body.expires else "", time.time())
            check_reach(body.role, body.models, body.hosts)
            limits = limits_of(
                rpm=body.rpm,
                tpm=body.tpm,
                concurrency=body.concurrency,
                budgets=body.budgets,
                priority=body.priority,
                share=body.share,
            )
        except ValueError as error:
            raise Conflict(str(error)) from None
        made = make(os.urandom)
        kept = self._gate.kept_as(made)
        key = Key(body.name, body.role, kept, tuple(body.models), tuple(body.hosts), expires, time.time(), limits)
        if any(one.name == body.name for one in self._gate.configured):
            raise Conflict(f"the configuration has a key {body.name!r}")
        await self._keyring.add(key, again=body.again)
        return MadeKey(made, _row(key))

    @handler(NotFound, Conflict, StoreUnavailable)
    async def limit(self, path: OneKey, body: OtherLimits) -> KeyRow:
        """Limit a key otherwise; it stays the same key, and what it has used it has used. At once here, within a second elsewhere."""
        try:
            return _row(
                await self._keyring.limit(path.name, lambda limits: limits_of(limits, **msgspec.to_builtins(body)))
            )
        except ValueError as error:
            raise Conflict(str(error)) from None

    @handler(NotFound, StoreUnavailable)
    async def rotate(self, path: OneKey) -> MadeKey:
        """Another key for the same name, with the same limits. The old one is no good from now on."""
        made = make(os.urandom)
        return MadeKey(made, _row(await self._keyring.rotate(path.name, self._gate.kept_as(made))))

    @handler(NotFound, StoreUnavailable)
    async def revoke(self, path: OneKey) -> KeyRevoked:
        """Make a key worthless, at once here and within a second elsewhere."""
        await self._keyring.revoke(path.name)
        return KeyRevoked(path.name)


def _row(key: Key) -> KeyRow:
    limits = key.limits
    return KeyRow(
        key.name,
        key.role,
        list(key.models),
        list(key.hosts),
        _moment(key.expires),
        _moment(key.created),
        _moment(key.revoked),
        limits.rpm,
        limits.tpm,
        limits.concurrency,
        list(limits.budgets),
        in_words(limits.priority),
        limits.share,
    )


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
