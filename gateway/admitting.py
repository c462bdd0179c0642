"""Joins who may come in to where keys are kept and deeds are written down, and says at the start what callers without a key may."""

import asyncio
import logging
import time

from gateway.access.gate import Gate
from gateway.access.keys import Key
from gateway.access.rights import IN_WORDS
from gateway.api.audit import AuditApi
from gateway.api.handler import Part
from gateway.api.keys import KeysApi
from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.store.audit import Audit
from gateway.store.engine import Database
from gateway.store.keyring import Keyring
from gateway.store.none import NoDatabase
from gateway.tasks import Tasks

log = logging.getLogger(__name__)


class Admitting:
    """``loopback``: only this machine can reach us."""

    def __init__(self, config: Config, database: Database | None, *, loopback: bool) -> None:
        self.gate = Gate(time.time, loopback=loopback, stored=database is not None)
        self.gate.configure(config)
        self.keyring = Keyring(database or NoDatabase(), self._keep)
        self.audit = Audit(database or NoDatabase())
        self._database = database
        self._loopback = loopback
        self._listen = config.listen

    def _keep(self, keys: tuple[Key, ...]) -> None:
        sure, before = self.gate.sure, self.gate.mode
        self.gate.keep(keys)
        if sure and self.gate.mode != before:
            log.info("callers without a key: access is %r from now on (it was %r)", self.gate.mode, before)

    def configure(self, config: Config) -> None:
        """The rules and keys of this configuration from now on."""
        self.gate.configure(config)

    async def start(self, tasks: Tasks, seconds: float) -> None:
        """Take the keys that are kept, before anybody comes in; if the database does not tell them in this time, they count as soon as it does."""
        if self._database is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self.keyring.look()
            except (StoreUnavailable, TimeoutError):
                log.warning("which keys there are is not known until the database is there")
            tasks.spawn("keys", self.keyring.run())
            tasks.spawn("audit", self.audit.run())
        if not self._loopback and self.gate.mode != "none" and not self.gate.keyed:
            log.warning(
                "others can reach %s, and there are no keys: whoever does %s. `corral keys create NAME` makes a key; access.anonymous says what"
                " callers without one may (docs/access.md)",
                self._listen,
                IN_WORDS[self.gate.mode],
            )

    def parts(self) -> tuple[Part, ...]:
        """What serves keys and deeds."""
        return KeysApi(self.gate, self.keyring), AuditApi(self.audit)

    async def close(self) -> None:
        """Write down what is not yet."""
        if self._database is not None:
            await self.audit.close()
