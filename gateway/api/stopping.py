"""Stopping what goes by a name, here and at the other gateways on the same PostgreSQL: one generation, or all of a session."""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.errors import StoreUnavailable
from gateway.record import CancelSource
from gateway.relay.generations import Generation, Generations
from gateway.relay.intents import Intent
from gateway.relay.shelf import Shelf
from gateway.store.replicas import Replicas
from gateway.turns.writer import ERASED

STOPPED = "stopped by an operator"


class Ended(NamedTuple):
    """What ends now: those that run here, how many of them were not ending before, how many run elsewhere (None: nobody can be asked)."""

    here: Sequence[Generation | Intent]
    fresh: int
    elsewhere: int | None

    @property
    def total(self) -> int:
        """All that is known of."""
        return len(self.here) + (self.elsewhere or 0)


class Stopping:
    """``replicas``: the gateways that share the database, if any do."""

    def __init__(self, generations: Generations, shelf: Shelf, replicas: Replicas | None) -> None:
        self._generations = generations
        self._shelf = shelf
        self._replicas = replicas

    async def stop(self, name: str, here: Sequence[Generation | Intent], whose: str | None = None) -> Ended:
        """As an operator wants it: first what runs ``here``, then what goes by the name elsewhere, of one principal (``whose``) or of all. Raises
        StoreUnavailable where only that could be meant."""
        fresh = sum(one.stop(CancelSource.OPERATOR, STOPPED) for one in here)
        try:
            return Ended(here, fresh, await self._asked(name, whose, erased=False))
        except StoreUnavailable:
            if not here:
                raise
            return Ended(here, fresh, None)

    async def erase(self, session: str) -> Ended:
        """Of a session that was deleted: all of it ends, and nobody can read any more what was answered in it."""
        here = self._generations.named(session)
        fresh = sum(one.stop(CancelSource.OPERATOR, ERASED) for one in here)
        self._shelf.erase(session)
        try:
            return Ended(here, fresh, await self._asked(session, None, erased=True))
        except StoreUnavailable:
            return Ended(here, fresh, None)

    async def _asked(self, name: str, whose: str | None, *, erased: bool) -> int:
        return 0 if self._replicas is None else await self._replicas.cancel(name, erased=erased, whose=whose)
