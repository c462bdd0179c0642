"""Hosts that come and go while it runs: looks at every source of hosts, and at the configuration's file, again and again."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from gateway.config import Config
from gateway.fleet.discovery import Discovery
from gateway.reload import Reloader
from gateway.tasks import pause, supervise
from gateway.telemetry.gauges import Configured

log = logging.getLogger(__name__)
FIRST_LOOK_SECONDS = 2.0


class Lookout:
    """Runs ``discovery``, and once told a file to ``follow``, takes in what changes there and tells ``changed``. ``beside``: looks at other files."""

    def __init__(
        self, config: Config, discovery: Discovery, changed: Callable[[Config], None], beside: Callable[[], None]
    ) -> None:
        self._config = config
        self._discovery = discovery
        self._changed = changed
        self._beside = beside
        self._reloader: Reloader | None = None
        self._loaded_at = time.time()
        self._now = asyncio.Event()

    def follow(self, load: Callable[[], Config], file: Path | None) -> None:
        """Reload the configuration whenever ``file`` changes, and on ``reload``."""
        self._reloader = Reloader(self._config, load, file, self._apply)

    def reload(self) -> None:
        """Read the configuration again, and look at every source of hosts now."""
        if self._reloader is not None:
            self._reloader.reload()
        self._now.set()

    @property
    def configured(self) -> Configured:
        """How reading the configuration has gone."""
        reloader = self._reloader
        if reloader is None:
            return Configured(True, self._loaded_at)
        return Configured(reloader.successful, self._loaded_at, reloader.reloads, reloader.failures)

    def _apply(self, config: Config) -> None:
        self._loaded_at = time.time()
        self._config = config
        self._discovery.configure(config)
        self._changed(config)

    async def first(self) -> None:
        """The hosts to start with, as far as sources tell them in FIRST_LOOK_SECONDS."""
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._discovery.step()
        except TimeoutError:
            log.warning("starting before every source of hosts has answered")

    async def run(self) -> None:
        """Look for ever, every ``discovery.interval_seconds``."""
        await supervise("discovery", self._look, self._until_the_next)

    async def _look(self) -> None:
        if self._reloader is not None:
            self._reloader.look()
        self._beside()
        await self._discovery.step()

    async def _until_the_next(self) -> None:
        await pause(self._config.discovery.interval_seconds, self._now)
        self._now.clear()
