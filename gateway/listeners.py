"""Where callers come in: aiohttp's server at each place, with what stands before every handler.

With ``admin.listen`` there are two kinds of places. There everything is served; at ``listen`` what is for operators and their machines
(``access.rights.behind``) is not there.
"""

import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

from aiohttp import web

from gateway.admitting import Admitting
from gateway.api.entrance import Entrance
from gateway.api.handler import Part
from gateway.api.inference import Inference
from gateway.api.manners import Manners
from gateway.api.middleware import Counted, boundary
from gateway.api.site import delivered, dispatching, runner
from gateway.api.unix import bound, identity, remove
from gateway.api.visits import Clock, visits
from gateway.config import Config, HttpConfig
from gateway.places import Place, places
from gateway.process import package_version
from gateway.proxies import Proxies
from gateway.telemetry.context import Contexts
from gateway.telemetry.lines import Visit

BACKLOG = 4096


class CannotListen(OSError):
    """``place`` is taken, or not ours to take; ``errno`` and ``strerror`` say why."""

    def __init__(self, place: Place, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.place = place


class Listener:
    """One place. ``whole``: everything is served there."""

    def __init__(self, place: Place, manners: Manners, entrance: Entrance, *, whole: bool) -> None:
        self.place = place
        self.manners = manners
        self.entrance = entrance
        self.whole = whole
        self.runner: web.AppRunner | None = None
        self.site: web.BaseSite | None = None
        self._made: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.place.path:
            return str(self.place)
        address, port = self.address
        return f"http://{Place(address, port)}"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port. For an address and a port only."""
        assert self.runner is not None
        address = self.runner.addresses[0]
        return str(address[0]), int(address[1])

    async def open(self, made: web.AppRunner, mode: int) -> None:
        """Listen for what is set up. ``mode``: of a Unix socket. Raises CannotListen."""
        self.runner = made
        path = self.place.path
        try:
            if path:
                self.site = web.SockSite(made, bound(path, mode), backlog=BACKLOG)
                self._made = identity(path)
            else:
                self.site = web.TCPSite(made, self.place.address, self.place.port, backlog=BACKLOG)
            await self.site.start()
        except OSError as error:
            raise CannotListen(self.place, error) from None

    async def shut(self) -> None:
        """Let nobody else in."""
        if self.site is not None:
            site, self.site = self.site, None
            await site.stop()
            remove(self.place.path, self._made)

    async def close(self) -> None:
        """Close every connection."""
        if self.runner is not None:
            await self.runner.cleanup()
            remove(self.place.path, self._made)


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
        self._around = visits(contexts, config.http.prefix, clock, time.time, visited)
        self._responded = responded
        self._hostname = socket.gethostname()
        admin = config.admin.listen
        self._all = [
            *(self._listener(place, whole=not admin) for place in places(config.listen)),
            *(self._listener(place, whole=True) for place in (places(admin, "admin.listen") if admin else ())),
        ]

    def _listener(self, place: Place, *, whole: bool) -> Listener:
        loopback = place.near and not place.path  # no browser speaks to a Unix socket
        http = self._config.http
        manners, entrance = (
            Manners(http, self._hostname, loopback=loopback),
            Entrance(place, Proxies(http.trusted_proxies)),
        )
        return Listener(place, manners, entrance, whole=whole)

    def __iter__(self) -> Iterable[Listener]:
        return iter(self._all)

    def __str__(self) -> str:
        """``http://127.0.0.1:11434``; several with commas between them, and those that are for operators by that name."""
        everybody = ", ".join(str(one) for one in self._all if one.whole is not bool(self._config.admin.listen))
        admin = ", ".join(str(one) for one in self._all if one.whole and self._config.admin.listen)
        return f"{everybody} (admin: {admin})" if admin else everybody

    @property
    def address(self) -> tuple[str, int]:
        """Where the first listens, with the real port."""
        return self._all[0].address

    @property
    def url(self) -> str:
        """Base URL of the gateway at the first place."""
        return str(self._all[0])

    def configure(self, http: HttpConfig) -> None:
        """These origins, hosts and proxies from now on."""
        proxies = Proxies(http.trusted_proxies)
        for one in self._all:
            one.manners.configure(http)
            one.entrance.proxies = proxies

    async def open(self, parts: Iterable[Part], inference: Inference) -> None:
        """Serve these parts at every place. Raises CannotListen."""
        every, http, gate = tuple(parts), self._config.http, self._access.gate
        for one in self._all:
            manners = one.manners
            middlewares = self._around, boundary(manners, gate, self._access.audit.put, self._responded)
            limit = self._config.relay.body_limit_bytes
            made = runner(every, middlewares, http.prefix, package_version(), limit, whole=one.whole)

            await made.setup()
            dispatching(made, partial(inference.dispatch, manners), gate, http.prefix, one.entrance)
            await one.open(made, int(http.unix_mode, 8))

    @property
    def opened(self) -> bool:
        """Whether anybody could have come in."""
        return any(one.runner is not None for one in self._all)

    async def shut(self) -> None:
        """Let nobody else in."""
        for one in self._all:
            await one.shut()

    async def delivered(self) -> None:
        """Wait until clients have taken what is written for them."""
        for one in self._all:
            if one.runner is not None:
                await delivered(one.runner)

    async def close(self) -> None:
        """Close every connection."""
        for one in self._all:
            await one.close()
