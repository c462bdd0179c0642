"""Joins who may come in to where keys are kept and deeds are written down, and says at the start what callers without a key may."""

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.access.gate import Gate
from gateway.access.keys import Key
from gateway.access.rights import IN_WORDS
from gateway.access.tallies import Tallies
from gateway.api.audit import AuditApi
from gateway.api.handler import Part
from gateway.api.keys import KeysApi
from gateway.api.usage import UsageApi
from gateway.checked import every_place
from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.store.audit import Audit
from gateway.store.engine import Database
from gateway.store.keyring import Keyring
from gateway.store.none import NoDatabase
from gateway.store.spending import Spending
from gateway.tasks import Tasks

TOLD_AGAIN_SECONDS = 60.0
TOLD_MOST = 10_000

log = logging.getLogger(__name__)


class Admitting:
    """Made with the gateway, started before anybody can come in. ``replica``: this gateway's name; ``limited`` is told which limit refused a request."""

    def __init__(self, config: Config, database: Database | None, replica: str, limited: Callable[[str], None]) -> None:
        self.tallies = Tallies(time.monotonic, time.time, self._refused)
        self._limited = limited
        self._told: dict[str, float] = {}  # when the log had a line of a key whose requests are refused
        self.gate = Gate(time.time, stored=database is not None)
        self.configure(config)
        self.keyring = Keyring(database or NoDatabase(), self._keep)
        self.audit = Audit(database or NoDatabase())
        self.spending = Spending(database or NoDatabase(), replica, self.tallies, time.time)
        self._database = database
        self._places = every_place(config)

    def _keep(self, keys: tuple[Key, ...]) -> None:
        sure, before = self.gate.sure, dict(self.gate.modes)
        self.gate.keep(keys)
        self.tallies.configure(self.gate.keys)
        for near in sorted({place.near for place in self._places}):
            was, mode = before[near], self.gate.modes[near]
            if sure and mode != was:
                where = "on this machine" if near else "elsewhere"
                log.info("callers without a key %s: access is %r from now on (it was %r)", where, mode, was)

    def _refused(self, name: str, limit: str) -> None:
        self._limited(limit)
        now = time.monotonic()
        if now - self._told.get(name, -TOLD_AGAIN_SECONDS) >= TOLD_AGAIN_SECONDS:
            if len(self._told) >= TOLD_MOST:
                self._told.clear()
            self._told[name] = now
            log.info("the key %r is at its limit (%s): it is refused, which is said once a minute", name, limit)

    def configure(self, config: Config) -> None:
        """The rules and keys of this configuration from now on."""
        self.gate.configure(config)
        self.tallies.configure(self.gate.keys)

    async def start(self, tasks: Tasks, seconds: float) -> None:
        """Take the keys that are kept, before anybody comes in; if the database does not tell them in this time, they count as soon as it does."""
        if self._database is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self.keyring.look()
            except (StoreUnavailable, TimeoutError):
                log.warning("which keys there are is not known until the database is there")
            await self.spending.start(seconds)
            tasks.spawn("keys", self.keyring.run())
            tasks.spawn("what keys have used", self.spending.run())
            tasks.spawn("audit", self.audit.run())
        reached = ", ".join(str(place) for place in self._places if not place.near)
        if reached and self.gate.modes[False] != "none" and not self.gate.keyed:
            log.warning(
                "others can reach %s, and there are no keys: whoever does %s. `corral keys create NAME` makes a key; access.anonymous says what"
                " callers without one may (docs/access.md)",
                reached,
                IN_WORDS[self.gate.modes[False]],
            )

    def parts(self) -> tuple[Part, ...]:
        """What serves keys, what they have used, and deeds."""
        usage = UsageApi(self.gate, self.tallies, time.time)
        return KeysApi(self.gate, self.keyring), AuditApi(self.audit), usage

    async def close(self) -> None:
        """Write down what is not yet."""
        if self._database is not None:
            await self.audit.close()
            await self.spending.close()
