"""Keys that were made while it ran: kept by digest, read again every second, so that what is revoked at one gateway is no good at any."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable

import msgspec
from sqlalchemy import ColumnElement, insert, select, text, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError

from gateway.access.keys import Key
from gateway.access.limits import Limits
from gateway.access.rights import KeyRole
from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.keyconfig import check_name
from gateway.store.none import Store
from gateway.store.schema import keys
from gateway.tasks import pause

BEAT_SECONDS = 1.0
_LOCK = 0x4B455953  # any number of our own: an advisory lock of PostgreSQL


class Keyring:
    """The table of keys, the revoked ones among them. ``tell`` is handed all, once they are known and whenever they are others. All but ``run`` raise
    StoreUnavailable."""

    def __init__(self, database: Store, tell: Callable[[tuple[Key, ...]], None]) -> None:
        self._database = database
        self._tell = tell
        self._told: tuple[Key, ...] | None = None

    async def look(self) -> tuple[Key, ...]:
        """All keys, by name."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(select(keys).order_by(keys.c.name))).all()
        found = tuple(map(_key, rows))
        if found != self._told:
            self._told = found
            self._tell(found)
        return found

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            with contextlib.suppress(StoreUnavailable):  # the keys that are known stay good
                await self.look()
            await pause(BEAT_SECONDS)

    async def add(self, key: Key, *, again: bool = False) -> None:
        """One more. ``again``: also for a name whose key was revoked, and to whom sessions may belong. Raises Conflict for a name that there is, or
        that would be taken for one, be it a revoked one's."""
        try:
            async with self._database.writing() as connection:
                if connection.dialect.name == "postgresql":  # or two at once could make names that look the same
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                names = (await connection.execute(select(keys.c.name))).scalars().all()
                check_name(key.name, names)
                taken = again and await connection.execute(update(keys).where(*_revoked(key.name)).values(_row(key)))
                if not taken or not taken.rowcount:
                    await connection.execute(insert(keys).values(_row(key)))
        except IntegrityError:
            raise await self._taken(key.name) from None
        except ValueError as error:
            raise Conflict(str(error)) from None
        await self.look()

    async def _taken(self, name: str) -> Conflict:
        if not any(key.name == name and key.revoked for key in await self.look()):
            return Conflict(f"there is a key {name!r} already: rotate or revoke it")
        return Conflict(
            f"a key {name!r} was revoked: sessions and requests of that name would be the new holder's; say `again` if they shall be"
        )

    async def rotate(self, name: str, digest: str) -> Key:
        """Another key for the same name; the old one is no good from now on. Raises NotFound."""
        async with self._database.writing() as connection:
            changed = update(keys).where(*_good(name)).values(digest=digest).returning(keys)
            row = (await connection.execute(changed)).one_or_none()
        if row is None:
            raise _missing(name)
        await self.look()
        return _key(row)

    async def limit(self, name: str, change: Callable[[Limits], Limits]) -> Key:
        """Other limits for the same key: what ``change`` makes of those that it has. Raises NotFound, and what ``change`` raises."""
        async with self._database.writing() as connection:
            mine = _good(name)
            row = (await connection.execute(select(keys).where(*mine).with_for_update())).one_or_none()
            if row is None:
                raise _missing(name)
            key = _key(row)
            key = msgspec.structs.replace(key, limits=change(key.limits))
            await connection.execute(update(keys).where(*mine).values(limits=_limits(key.limits)))
        await self.look()
        return key

    async def revoke(self, name: str) -> None:
        """No good from now on; its name stays taken. Raises NotFound."""
        async with self._database.writing() as connection:
            now = {"revoked_us": int(time.time() * 1e6)}
            gone = (await connection.execute(update(keys).where(*_good(name)).values(now))).rowcount
        if not gone:
            raise _missing(name)
        await self.look()


def _good(name: str) -> tuple[ColumnElement[bool], ...]:
    return keys.c.name == name, keys.c.revoked_us == 0


def _revoked(name: str) -> tuple[ColumnElement[bool], ...]:
    return keys.c.name == name, keys.c.revoked_us > 0


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no key {name[:64]!r} in the database; those of the configuration are changed there")


def _key(row: Row[tuple[object, ...]]) -> Key:
    return Key(
        row.name,
        KeyRole(row.role),
        row.digest,
        tuple(json.loads(row.models)),
        tuple(json.loads(row.hosts)),
        row.expires_us / 1e6,
        row.created_us / 1e6,
        msgspec.json.decode(row.limits, type=Limits),
        row.revoked_us / 1e6,
    )


def _row(key: Key) -> dict[str, object]:
    return {
        "name": key.name,
        "role": key.role,
        "digest": key.digest,
        "models": _listed(key.models),
        "hosts": _listed(key.hosts),
        "expires_us": int(key.expires * 1e6),
        "created_us": int(key.created * 1e6),
        "limits": _limits(key.limits),
        "revoked_us": int(key.revoked * 1e6),
    }


def _limits(limits: Limits) -> str:
    return msgspec.json.encode(limits).decode()


def _listed(patterns: Iterable[str]) -> str:
    return json.dumps(list(patterns), ensure_ascii=False)
