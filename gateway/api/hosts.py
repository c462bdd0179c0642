"""The hosts behind the address: what each has and does, what is amiss with the fleet, and draining one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from gateway.api.handler import handler
from gateway.config import PlacementConfig
from gateway.doc import doc
from gateway.errors import NotFound
from gateway.fleet.health import State
from gateway.fleet.host import LoadedModel
from gateway.fleet.hygiene import Finding, findings
from gateway.fleet.keeps import Keep
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView
from gateway.store.draining import Draining

OLLAMA_PORT = 11434
_PORTS = {"http": 80, "https": 443}
ModelRow = Mapping[str, Any]


class OneHost(msgspec.Struct, frozen=True):
    """Names a host."""

    name: Annotated[str, doc("a host's name")]


class ServerQuery(msgspec.Struct, frozen=True):
    """Names a host, more freely."""

    server_url: Annotated[
        str,
        doc(
            "a host's configured URL, in any equal spelling, or its name; anything else is 404 and never fetched",
            min_length=1,
        ),
    ]


class Learned(msgspec.Struct, frozen=True):
    """What was learned of one model on one host; null: not measured yet."""

    model: Annotated[str, doc("the model's full name")]
    load_seconds: Annotated[float | None, doc("to load it")]
    prefill_tokens_per_second: Annotated[float | None, doc("reading prompts")]
    decode_tokens_per_second: Annotated[float | None, doc("writing answers")]


class HostRow(msgspec.Struct, frozen=True):
    """All that is known of one host."""

    name: Annotated[str, doc("its short name, as configured")]
    url: Annotated[str, doc("its base URL, as configured")]
    tags: Annotated[tuple[str, ...], doc("as configured")]
    health: Annotated[
        State,
        doc(
            "`healthy`; `suspect`: failed lately, still used; `ejected`: not used; `trial`: one request may try it",
        ),
    ]
    why: Annotated[str, doc("why it is not healthy; empty if it is")]
    draining: Annotated[bool, doc("whether it takes no new requests, and nothing new on its disk unless it is named")]
    version: Annotated[str, doc("Ollama's; empty before it was told")]
    latency_seconds: Annotated[float, doc("how long it took to answer the last poll")]
    seen_seconds_ago: Annotated[float | None, doc("when it last answered a poll; null: never")]
    slots: Annotated[int, doc("requests that it may serve at once: as configured, or as was found out", ge=1)]
    slots_configured: Annotated[int, doc("the same as configured; 0: not said", ge=0)]
    parallel: Annotated[
        dict[str, int],
        doc("requests that it runs at once, by model, where its answers told and that is not `slots_configured`"),
    ]
    leases: Annotated[int, doc("slots that are taken", ge=0)]
    vram_bytes: Annotated[int, doc("its video memory, as configured; 0: not said", ge=0)]
    learned: Annotated[list[Learned], doc("what routing knows of its models' speed, by name")]
    models_loading: Annotated[list[str], doc("models that it loads now, as requests under way tell")]
    models_kept: Annotated[
        list[Keep], doc("models that are to stay in its memory: pinned, or kept warm; and how that stands")
    ]
    models_available: Annotated[list[ModelRow], doc("on its disk: its own rows of `/api/tags`; sizes in bytes")]
    models_loaded: Annotated[list[ModelRow], doc("in its memory: its own rows of `/api/ps`; sizes in bytes")]


class DrainedRow(HostRow, frozen=True, kw_only=True):
    """A host that drains, or does so no more."""

    kept: Annotated[
        bool,
        doc(
            "whether the database knows: a restart does not forget it, other gateways follow within a second. `false`: it counts here, "
            "and is written as soon as it can be"
        ),
    ]


class ServerList(msgspec.Struct, frozen=True):
    """The hosts."""

    servers: Annotated[list[HostRow], doc("every host, in the configuration's order")]


class Server(msgspec.Struct, frozen=True):
    """Which host."""

    name: Annotated[str, doc("its short name, as configured")]
    url: Annotated[str, doc("its base URL, as configured")]


class ServerModels(msgspec.Struct, frozen=True):
    """What one host has."""

    server: Annotated[Server, doc("which host")]
    models: Annotated[list[ModelRow], doc("on its disk: its own rows of `/api/tags`; sizes in bytes")]


class FleetState(msgspec.Struct, frozen=True):
    """The fleet as a whole."""

    hosts: Annotated[list[HostRow], doc("every host, in the configuration's order")]
    findings: Annotated[list[Finding], doc("what is amiss with all of them together")]


class HostsApi:
    """Handlers of ``/api/models/servers``, ``/api/fleet`` and ``/api/hosts``. ``draining``: which hosts drain;
    ``kept``: the models that are to stay in a host's memory."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Callable[[], float],
        draining: Draining,
        placement: Callable[[], Sequence[PlacementConfig]],
        kept: Callable[[str], list[Keep]],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._drained = draining
        self._placement = placement
        self._kept = kept

    def routes(self) -> list[web.RouteDef]:
        """Look, and drain."""
        return [
            web.get("/api/models/servers", self.servers),
            web.get("/api/models/server/models", self.server_models),
            web.get("/api/fleet", self.fleet),
            web.post("/api/hosts/{name}/drain", self.drain),
            web.post("/api/hosts/{name}/resume", self.resume),
        ]

    @handler()
    async def servers(self) -> ServerList:
        """Every host."""
        return ServerList(self._rows())

    @handler(NotFound)
    async def server_models(self, query: ServerQuery) -> ServerModels:
        """One host's models. Only what is configured can be named; nothing is fetched."""
        wanted = query.server_url
        for view in self._fleet.snapshot(self._clock()).hosts:
            if wanted == view.name or same_place(wanted, view.host.url):
                return ServerModels(Server(view.name, view.host.url), _available(view))
        raise NotFound(f"no host is configured as {wanted[:200]!r}; there are: {', '.join(self._fleet.names)}")

    @handler()
    async def fleet(self) -> FleetState:
        """Every host, and what is amiss with all of them together."""
        return FleetState(self._rows(), findings(self._fleet.snapshot(self._clock()), self._placement()))

    @handler(NotFound)
    async def drain(self, path: OneHost) -> DrainedRow:
        """No new requests for this host, and nothing new on its disk unless `X-Corral-Hosts` names it; what runs finishes. Idempotent. It holds
        for the name: also when the host goes and comes back, and after a restart, if it is `kept`."""
        return await self._draining(path.name, draining=True)

    @handler(NotFound)
    async def resume(self, path: OneHost) -> DrainedRow:
        """New requests for this host again. Idempotent."""
        return await self._draining(path.name, draining=False)

    async def _draining(self, name: str, *, draining: bool) -> DrainedRow:
        self._check(name)
        kept = await self._drained.drain(name, draining=draining)
        self._check(name)  # it may have gone meanwhile
        row = host_row(self._fleet.view(name, self._clock()), self._clock(), self._kept(name))
        return DrainedRow(**msgspec.structs.asdict(row), kept=kept)

    def _check(self, name: str) -> None:
        if name not in self._fleet.names:
            raise NotFound(f"no host is named {name[:200]!r}; there are: {', '.join(self._fleet.names)}")

    def _rows(self) -> list[HostRow]:
        now = self._clock()
        return [host_row(view, now, self._kept(view.name)) for view in self._fleet.snapshot(now).hosts]


def host_row(view: HostView, now: float, kept: list[Keep]) -> HostRow:
    """All that is known of one host. Models keep the fields that the host gave them."""
    return HostRow(
        name=view.name,
        url=view.host.url,
        tags=view.host.tags,
        health=view.health.state,
        why=view.health.why,
        draining=view.draining,
        version=view.version,
        latency_seconds=round(view.latency_seconds, 6),
        seen_seconds_ago=None if view.seen_at is None else round(now - view.seen_at, 3),
        slots=view.slots,
        slots_configured=view.host.slots,
        parallel=_parallel(view),
        leases=view.leases,
        vram_bytes=view.host.vram_bytes,
        learned=_learned(view),
        models_loading=sorted(name for name, model in (view.available or {}).items() if model.digest in view.loading),
        models_kept=kept,
        models_available=_available(view),
        models_loaded=[dict(model.row) or _proved(model) for model in view.loaded.values()],
    )


def _learned(view: HostView) -> list[Learned]:
    known = {name: view.estimates.get(model.digest) for name, model in sorted((view.available or {}).items())}
    return [
        Learned(name, *(_short(value) for value in (one.load_seconds, one.prefill_rate, one.decode_rate)))
        for name, one in known.items()
        if one is not None
    ]


def _parallel(view: HostView) -> dict[str, int]:
    named = {model.digest: name for name, model in sorted((view.available or {}).items(), reverse=True)}
    found = [(named[digest], limit) for digest, limit in view.parallel.items() if digest in named]
    return dict(sorted(found))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _available(view: HostView) -> list[ModelRow]:
    return [model.row for model in (view.available or {}).values()]


def _proved(model: LoadedModel) -> ModelRow:
    """The row of a model that no poll has seen in memory yet: only our own answers prove it."""
    return {
        "name": model.name,
        "model": model.name,
        "digest": model.digest,
        "size": model.size,
        "size_vram": model.vram,
        "context_length": model.context,
        "expires_at": model.expires_at or None,
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
