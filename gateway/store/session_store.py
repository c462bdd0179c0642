"""All that is kept of sessions, in one hand."""

import contextlib
import logging
import random
from collections.abc import Callable

from gateway.errors import StoreUnavailable
from gateway.store.engine import Database
from gateway.store.messages import Messages
from gateway.store.none import NoDatabase
from gateway.store.search import Search
from gateway.store.sessions import Sessions
from gateway.store.transcripts import Transcripts
from gateway.store.turns import ABSENT_SECONDS, Turns
from gateway.tasks import pause

log = logging.getLogger(__name__)


class SessionStore:
    """The rooms over one database. ``wall``: Unix seconds; ``rng`` makes ids that cannot be guessed."""

    def __init__(self, database: Database | None, wall: Callable[[], float], rng: random.Random) -> None:
        store = database or NoDatabase()
        self._wall = wall
        self.sessions = Sessions(store, wall, rng)
        self.messages = Messages(store)
        self.turns = Turns(store, wall)
        self.search = Search(store)
        self.transcripts = Transcripts(store, self.sessions)

    async def recover(self, database: Database) -> None:
        """End what processes that are gone left unfinished. Who has a database alone finds it at the start; who shares it, every
        ABSENT_SECONDS, for ever."""
        began, alone = self._wall(), database.alone
        while True:
            with contextlib.suppress(StoreUnavailable):  # the database says so itself, once
                before = began if alone else self._wall() - ABSENT_SECONDS
                if left := await self.turns.break_off(before, alone=alone):
                    log.warning("%d answers were broken off when their gateway stopped; what there was is kept", left)
                if database.sqlite:
                    return
                alone = False
            await pause(ABSENT_SECONDS)
