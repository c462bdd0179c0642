"""Who did what that changes models, hosts or keys."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.api.handler import handler
from gateway.doc import doc
from gateway.errors import StoreUnavailable
from gateway.store.audit import Audit, Deed


class DeedRow(msgspec.Struct, frozen=True):
    """One deed."""

    at: Annotated[str, doc("when it was done, in UTC, ISO 8601")]
    principal: Annotated[str, doc("whose key it was; empty: there was none")]
    role: Annotated[str, doc("the key's; empty: there was none")]
    client: Annotated[str, doc("the caller's address; empty: the command line")]
    operation: Annotated[str, doc("like `POST /api/pull`")]
    target: Annotated[str, doc("the model, host or key")]
    status: Annotated[int, doc("of the answer; 499: the caller left before there was one")]


class DeedsPage(msgspec.Struct, frozen=True):
    """What was done."""

    deeds: Annotated[list[DeedRow], doc("the newest first")]
    next: Annotated[int | None, doc("`before` of the page that follows; null at the end")]


class DeedsQuery(msgspec.Struct, frozen=True):
    """Which of them."""

    limit: Annotated[int, doc("rows of a page", ge=1, le=500)] = 50
    before: Annotated[int, doc("`next` of the page before", ge=0, le=2**63 - 1)] | UnsetType = UNSET


class AuditApi:
    """The handler of ``/api/audit``."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """The one path."""
        return [web.get("/api/audit", self.all)]

    @handler(StoreUnavailable)
    async def all(self, query: DeedsQuery) -> DeedsPage:
        """Who did what that changes models, hosts or keys, also what was not allowed to a key; the newest first."""
        before = None if isinstance(query.before, UnsetType) else query.before
        found = await self._audit.page(before, query.limit)
        return DeedsPage([_row(deed) for _, deed in found], found[-1][0] if len(found) == query.limit else None)


def _row(deed: Deed) -> DeedRow:
    at = datetime.fromtimestamp(deed.at, UTC).isoformat(timespec="milliseconds")
    return DeedRow(at, deed.principal, deed.role, deed.client, deed.operation, deed.target, deed.status)
