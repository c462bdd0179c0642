"""The hosts behind the address: what each has and does, what is amiss with the fleet, and draining one."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from gateway.api.answers import json_answer
from gateway.errors import BadRequest, NotFound
from gateway.fleet.host import HostView
from gateway.fleet.hygiene import findings
from gateway.fleet.registry import Fleet

OLLAMA_PORT = 11434
_PORTS = {"http": 80, "https": 443}


class HostsApi:
    """Handlers of ``/api/models/servers``, ``/api/fleet`` and ``/api/hosts``. ``changed`` is called when a host may lease again."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._changed = changed

    def routes(self) -> list[web.RouteDef]:
        """Look, and drain."""
        return [
            web.get("/api/models/servers", self.servers),
            web.get("/api/models/server/models", self.server_models),
            web.get("/api/fleet", self.fleet),
            web.post("/api/hosts/{name}/drain", self.drain),
            web.post("/api/hosts/{name}/resume", self.resume),
        ]

    async def servers(self, _request: web.Request) -> web.Response:
        """Every host."""
        return json_answer({"servers": self._rows()})

    async def server_models(self, request: web.Request) -> web.Response:
        """One host's models. Only what is configured can be named; nothing is fetched."""
        wanted = request.query.get("server_url", "")
        if not wanted:
            raise BadRequest("say which: ?server_url=, a host's URL or name")
        for view in self._fleet.snapshot(self._clock()).hosts:
            if wanted == view.name or same_place(wanted, view.host.url):
                row = host_row(view, self._clock())
                return json_answer(
                    {"server": {"name": view.name, "url": view.host.url}, "models": row["models_available"]}
                )
        raise NotFound(f"no host is configured as {wanted[:200]!r}; there are: {', '.join(self._fleet.names)}")

    async def fleet(self, _request: web.Request) -> web.Response:
        """Every host, and what is amiss with all of them together."""
        amiss = [msgspec.structs.asdict(finding) for finding in findings(self._fleet.snapshot(self._clock()))]
        return json_answer({"hosts": self._rows(), "findings": amiss})

    async def drain(self, request: web.Request) -> web.Response:
        """No new requests for this host; those that run finish. Idempotent."""
        return self._draining(request, draining=True)

    async def resume(self, request: web.Request) -> web.Response:
        """It takes requests again. Idempotent."""
        return self._draining(request, draining=False)

    def _draining(self, request: web.Request, *, draining: bool) -> web.Response:
        name = request.match_info["name"]
        if name not in self._fleet.names:
            raise NotFound(f"no host is named {name!r}; there are: {', '.join(self._fleet.names)}")
        self._fleet.drain(name, draining=draining)
        self._changed()
        return json_answer(host_row(self._fleet.view(name, self._clock()), self._clock()))

    def _rows(self) -> list[dict[str, Any]]:
        now = self._clock()
        return [host_row(view, now) for view in self._fleet.snapshot(now).hosts]


def host_row(view: HostView, now: float) -> dict[str, Any]:
    """All that is known of one host; seconds and bytes. Models keep the fields that the host gave them."""
    return {
        "name": view.name,
        "url": view.host.url,
        "tags": view.host.tags,
        "health": view.health.state,
        "why": view.health.why,
        "draining": view.draining,
        "version": view.version,
        "latency_seconds": round(view.latency_seconds, 6),
        "seen_seconds_ago": None if view.seen_at is None else round(now - view.seen_at, 3),
        "slots": view.host.slots,
        "leases": view.leases,
        "models_available": [model.row for model in (view.available or {}).values()],
        "models_loaded": [
            dict(model.row)
            or {
                "name": model.name,
                "model": model.name,
                "digest": model.digest,
                "size": model.size,
                "size_vram": model.vram,
                "context_length": model.context,
                "expires_at": model.expires_at or None,
            }
            for model in view.loaded.values()
        ],
    }


def same_place(given: str, configured: str) -> bool:
    """Whether two URLs are the same place: case, default ports and a last slash aside; no scheme means Ollama's own port."""
    place = _place(given)
    return place is not None and place == _place(configured)


def _place(url: str) -> tuple[str, str, int, str] | None:
    bare = "://" not in url
    try:
        parts = urlsplit(f"http://{url}" if bare else url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    port = port or (OLLAMA_PORT if bare else _PORTS[parts.scheme])
    return parts.scheme, parts.hostname.rstrip("."), port, parts.path.rstrip("/")
