"""Where callers come in: aiohttp's server on its address, with what stands before every handler."""

import socket
import time
from collections.abc import Callable, Iterable

from aiohttp import web

from gateway.admitting import Admitting
from gateway.api.caller import Handler
from gateway.api.handler import Part
from gateway.api.manners import Manners, is_loopback
from gateway.api.middleware import Counted, boundary
from gateway.api.site import delivered, dispatching, runner
from gateway.api.visits import Clock, visits
from gateway.config import Config, split_listen
from gateway.process import package_version
from gateway.telemetry.context import Contexts
from gateway.telemetry.lines import Visit

BACKLOG = 4096


class Listeners:
    """Made with the gateway, opened once its parts are there. ``visited`` is told of each request that does not say so itself; None: nobody is."""

    def __init__(
        self,
        config: Config,
        access: Admitting,
        contexts: Contexts,
        clock: Clock,
        visited: Callable[[Visit], None] | None,
        responded: Counted,
    ) -> None:
        self._config = config
        self._access = access
        self.manners = Manners(config.http, socket.gethostname(), loopback=loopback(config))
        prefix = self.manners.prefix
        self._middlewares = (
            visits(contexts, prefix, clock, time.time, visited),
            boundary(self.manners, access.gate, access.audit.put, responded),
        )
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port."""
        assert self._runner is not None
        address = self._runner.addresses[0]
        return str(address[0]), int(address[1])

    @property
    def url(self) -> str:
        """Base URL of the gateway."""
        address, port = self.address
        return f"http://{f'[{address}]' if ':' in address else address}:{port}"

    async def open(self, parts: Iterable[Part], dispatch: Callable[[Handler], Handler]) -> None:
        """Serve these parts; ``dispatch`` what can be without aiohttp's router. Raises OSError when the port is taken."""
        prefix, limit = self.manners.prefix, self._config.relay.body_limit_bytes
        self._runner = runner(parts, self._middlewares, prefix, package_version(), limit)
        await self._runner.setup()
        dispatching(self._runner, dispatch, self._access.gate, prefix)
        address, port = split_listen(self._config.listen)
        self._site = web.TCPSite(self._runner, address, port, backlog=BACKLOG)
        await self._site.start()

    @property
    def opened(self) -> bool:
        """Whether anybody could have come in."""
        return self._runner is not None

    async def shut(self) -> None:
        """Let nobody else in."""
        if self._site is not None:
            await self._site.stop()

    async def delivered(self) -> None:
        """Wait until clients have taken what is written for them."""
        if self._runner is not None:
            await delivered(self._runner)

    async def close(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()


def loopback(config: Config) -> bool:
    """Whether only this machine can reach what listens as configured."""
    return is_loopback(split_listen(config.listen)[0])
