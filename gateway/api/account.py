"""What depends on one host's ollama.com account, or on its cloud: one designated host answers for the whole fleet.

A caller who names a host (X-Corral-Host) gets that one's answer: each host can have an account of its own. Either way their key must be good for it.
"""

from aiohttp import web

from gateway.access.gate import permit_host
from gateway.api.answers import passed_on
from gateway.api.bodies import read_body
from gateway.api.caller import WHO
from gateway.api.manners import bare
from gateway.config import Config
from gateway.errors import NoHost
from gateway.fleet.client import HostClient, HostError
from gateway.fleet.host import Host
from gateway.fleet.registry import Fleet
from gateway.fleet.targets import pinned
from gateway.relay.headers import inbound, to_host

ACCOUNT_SECONDS = 60.0  # the host asks ollama.com
RETRY_AFTER_SECONDS = 2.0


class Account:
    """Passes requests to the host ``named``, or else the first, and its answers back."""

    def __init__(self, fleet: Fleet, client: HostClient, config: Config) -> None:
        self._fleet = fleet
        self._client = client
        self._prefix = config.http.prefix  # to be left out of a path
        self._body_limit = config.relay.body_limit_bytes
        self.named = config.account_host

    def routes(self) -> list[web.RouteDef]:
        """The account's paths and the cloud's."""
        return [
            web.get("/api/status", self.pass_on, allow_head=False),
            web.post("/api/me", self.pass_on),
            web.post("/api/signout", self.pass_on),
            web.delete("/api/user/keys/{key}", self.pass_on),
            web.post("/api/experimental/web_search", self.pass_on),
            web.post("/api/experimental/web_fetch", self.pass_on),
            web.get("/api/experimental/model-recommendations", self.pass_on, allow_head=False),
        ]

    async def pass_on(self, request: web.Request) -> web.Response:
        """The host's answer, as it came. 503 if there is none, 403 if it is none of the caller's key's."""
        pin = pinned(inbound(request.raw_headers).pin, self._fleet.names)
        host = self._host(pin)
        permit_host(request[WHO], host.name)
        body = await read_body(request, self._body_limit)
        path = bare(request.rel_url.raw_path_qs, self._prefix)
        headers = to_host(request.raw_headers)
        try:
            answer = await self._client.call(host, request.method, path, body or None, ACCOUNT_SECONDS, headers)
        except HostError as error:
            who = f"host {host.name}" if pin else f"the account host {host.name}"
            raise NoHost(f"{who} does not answer: {error}", retry_after=RETRY_AFTER_SECONDS) from None
        return passed_on(answer, host.name)

    def _host(self, pin: str) -> Host:
        wanted = pin or self.named
        for host in self._fleet.hosts:
            if host.name == (wanted or host.name):
                return host
        raise NoHost(f"the account host {self.named} is not there", retry_after=RETRY_AFTER_SECONDS)
