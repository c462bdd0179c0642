"""Where callers come in: aiohttp's server at each place, with what stands before every handler.

With ``admin.listen`` there are two kinds of places. There everything is served; at ``listen`` what is for operators and their machines
(``access.rights.behind``) is not there.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from aiohttp import web

from gateway.admitting import Admitting
from gateway.api import accepting, unix
from gateway.api.accepting import Acceptor
from gateway.api.certificate import Certificate
from gateway.api.door import Door, Doorway
from gateway.api.entrance import Entrance
from gateway.api.handler import Part
from gateway.api.inference import Inference
from gateway.api.manners import Manners
from gateway.api.middleware import boundary
from gateway.api.site import delivered, dispatching, runner
from gateway.api.visits import Clock, visits
from gateway.checked import every_place
from gateway.config import Config, HttpConfig
from gateway.places import Place
from gateway.process import package_version
from gateway.proxies import Proxies
from gateway.telemetry.context import Contexts
from gateway.telemetry.lines import Visit
from gateway.telemetry.metrics import Metrics

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
        self._acceptor: Acceptor | None = None
        self._made: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.place.path:
            return str(self.place)
        return f"{'https' if self.place.tls else 'http'}://{Place(*self.address)}"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port. For an address and a port only."""
        assert self.runner is not None
        address = self._acceptor.sockets[0].getsockname() if self._acceptor else self.runner.addresses[0]
        return str(address[0]), int(address[1])

    async def open(self, made: web.AppRunner, certificate: Certificate, mode: int) -> None:
        """Listen for what is set up. ``mode``: of a Unix socket. Raises CannotListen."""
        self.runner = made
        try:
            if self.place.tls or self.place.proxied:
                await self._accept(made, certificate, mode)
            else:
                await self._leave_to_aiohttp(made, mode)
        except OSError as error:
            raise CannotListen(self.place, error) from None

    async def _leave_to_aiohttp(self, made: web.AppRunner, mode: int) -> None:
        if self.place.path:
            self.site = web.SockSite(made, self._unix(mode), backlog=BACKLOG)
        else:
            self.site = web.TCPSite(made, self.place.address, self.place.port, backlog=BACKLOG)
        await self.site.start()

    async def _accept(self, made: web.AppRunner, certificate: Certificate, mode: int) -> None:
        assert isinstance(made.server, Doorway)
        place, entrance = self.place, self.entrance
        socks = [self._unix(mode)] if place.path else await accepting.bound(place.address, place.port)
        self._acceptor = Acceptor(
            socks,
            made.server,
            lambda: certificate.context if place.tls else None,
            (lambda: entrance.proxies) if place.proxied else None,
        )
        self._acceptor.start(BACKLOG)

    def _unix(self, mode: int) -> socket.socket:
        sock = unix.bound(self.place.path, mode)
        self._made = unix.identity(self.place.path)
        return sock

    async def shut(self) -> None:
        """Let nobody else in."""
        if self.site is not None:
            site, self.site = self.site, None
            await site.stop()
        if self._acceptor is not None:
            await self._acceptor.stop()
        unix.remove(self.place.path, self._made)

    async def close(self) -> None:
        """Close every connection."""
        await self.shut()
        if self.runner is not None:
            await self.runner.cleanup()


class Listeners:
    """Made with the gateway, opened once its parts are there. ``visited`` is told of each request that does not say so itself; None: nobody is."""

    def __init__(
        self,
        config: Config,
        access: Admitting,
        contexts: Contexts,
        clock: Clock,
        visited: Callable[[Visit], None] | None,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._access = access
        self._around = visits(contexts, config.http.prefix, clock, time.time, visited)
        self._responded = metrics.responded
        # Operators get in however many others there are.
        proxies = Proxies(config.http.trusted_proxies)
        self._doors = {whole: Door(config.connections, proxies, clock, metrics.turned_away) for whole in (True, False)}
        self._hostname = socket.gethostname()
        self.certificate = Certificate(config.tls)
        self._all = [self._listener(place) for place in every_place(config)]

    def _listener(self, place: Place) -> Listener:
        loopback = place.near and not place.path  # no browser speaks to a Unix socket
        whole = place.admin or not self._config.admin.listen
        http = self._config.http
        manners, entrance = (
            Manners(http, self._hostname, loopback=loopback),
            Entrance(place, Proxies(http.trusted_proxies)),
        )
        return Listener(place, manners, entrance, whole=whole)

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._all)

    def __str__(self) -> str:
        """``http://127.0.0.1:11434``; several with commas between them, and those that are for operators by that name."""
        everybody = ", ".join(str(one) for one in self._all if not one.place.admin)
        admin = ", ".join(str(one) for one in self._all if one.place.admin)
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
        for door in self._doors.values():
            door.proxies = proxies

    async def open(self, parts: Iterable[Part], inference: Inference) -> None:
        """Serve these parts at every place. Raises CannotListen."""
        every, http, gate = tuple(parts), self._config.http, self._access.gate
        for one in self._all:
            manners = one.manners
            middlewares = (
                self._around,
                boundary(manners, gate, self._access.audit.put, self._responded, inference.bodies),
            )
            limit = self._config.relay.body_limit_bytes
            made = runner(
                every, middlewares, http.prefix, package_version(), limit, self._doors[one.whole], whole=one.whole
            )

            await made.setup()
            dispatching(made, partial(inference.dispatch, manners), gate, http.prefix, one.entrance)
            await one.open(made, self.certificate, int(http.unix_mode, 8))

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
