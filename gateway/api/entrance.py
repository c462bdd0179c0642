"""By which way a request came in: who its client is, and whether that is on this machine, where only this machine can reach.

1. without a header of a proxy's: whoever connected; near as the place is;
2. with X-Forwarded-For, by a proxy that is trusted: whoever it names; not near, as nobody is who comes through a proxy;
3. with such a header by anybody else: whoever connected; not near either, for such a header could only be there to bring others in.
"""

from collections.abc import Awaitable
from typing import Any, Final

from aiohttp import hdrs, web
from multidict import istr

from gateway.api.caller import Handler
from gateway.places import Place
from gateway.proxies import UNIX, Proxies

_REAL_IP: Final = istr("X-Real-IP")


class Entrance:
    """The way in at one place. ``proxies`` can be others from one moment to the next."""

    def __init__(self, place: Place, proxies: Proxies) -> None:
        self.proxies = proxies
        self.near = place.near
        self._by_socket = bool(place.path) and not place.proxied  # whoever a PROXY header names came by no socket

    def leading(self, inside: Handler, outside: Handler) -> Handler:
        """A handler of all requests: callers on this machine to ``inside``, others to ``outside``."""
        direct = inside if self.near else outside
        unix = self._by_socket

        def entered(request: Any) -> Awaitable[web.StreamResponse]:
            headers = request._message.headers
            if hdrs.X_FORWARDED_FOR in headers or hdrs.FORWARDED in headers or _REAL_IP in headers:
                request._transport_peername = self._client(request)
                return outside(request)
            if unix:
                request._transport_peername = UNIX
            return direct(request)

        return entered

    def _client(self, request: web.BaseRequest) -> str:
        known = request._transport_peername  # request.remote would keep what it says now
        peer = UNIX if self._by_socket else str(known[0]) if isinstance(known, tuple) else ""
        return self.proxies.client(peer, ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())))
