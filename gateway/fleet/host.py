"""Frozen facts about hosts: what is configured, what a poll saw, and what routing looks at."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.fleet.ewma import Estimate
from gateway.fleet.health import Health
from gateway.fleet.prompts import Known

RunnerOptions = tuple[tuple[str, Any], ...]


class Host(msgspec.Struct, frozen=True, gc=False):
    """One Ollama server as configured. ``slots``: requests it may serve at once."""

    name: str
    url: str
    slots: int = 1
    tags: tuple[str, ...] = ()
    vram_bytes: int = 0  # as configured; 0: not said


class AvailableModel(msgspec.Struct, frozen=True, gc=False):
    """A model on a host's disk. ``row`` is the host's own /api/tags row, untouched; ``size`` in bytes."""

    name: str
    digest: str
    size: int
    row: Mapping[str, Any]


class LoadedModel(msgspec.Struct, frozen=True, gc=False):
    """A model in a host's memory; sizes in bytes. ``row`` is the host's own /api/ps row (empty while only our answers prove it)."""

    name: str
    digest: str
    size: int
    vram: int
    context: int
    expires_at: str
    row: Mapping[str, Any]


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What one poll returned; None where it did not ask. ``latency_seconds`` is that of /api/version; ``began``: when /api/ps was asked, like
    ``at``; ``wall``: Unix seconds of ``at``."""

    at: float
    version: str
    latency_seconds: float
    loaded: tuple[LoadedModel, ...] | None = None
    available: tuple[AvailableModel, ...] | None = None
    began: float = 0.0
    wall: float = 0.0


class HostView(msgspec.Struct, frozen=True, gc=False):
    """One host as a decision sees it: configuration, health, polled facts, live leases, learned estimates."""

    host: Host
    health: Health
    available: Mapping[str, AvailableModel] | None  # by canonical name; None: never told
    loaded: Mapping[str, LoadedModel]  # by digest
    loading: Mapping[str, float]  # digest → since when
    runners: Mapping[str, RunnerOptions]  # digest → runner options last sent
    leases: int
    leased_at: float  # when a slot was last taken
    estimates: Mapping[str, Estimate]  # by digest
    service_seconds: float | None
    version: str
    latency_seconds: float
    seen_at: float | None
    draining: bool = False
    elsewhere: int = 0  # leases that other gateways hold here, as last told
    ghosts: frozenset[str] = frozenset()  # models listed by /api/tags that requests were told are not there
    ends: tuple[float, ...] = ()  # when each lease should be over
    prompts: Mapping[str, tuple[Known, ...]] = msgspec.field(default_factory=dict)  # digest → what its slots know
    load_rate: float | None = None  # bytes per second, over all models that were loaded here
    vram_seen: int = 0  # the most memory that models were seen to use at once
    models_seen: int = 0  # the most models that were seen loaded at once
    vram_taken: int = 0  # by what is loaded now
    regrets: Mapping[str, float] = msgspec.field(default_factory=dict)  # digest → what others would wait if it left
    regret: float = 0.0  # their sum
    memo: dict[Any, Any] = msgspec.field(
        default_factory=dict
    )  # what routing has worked out of the above, until any of it changes

    @property
    def name(self) -> str:
        """The host's short name."""
        return self.host.name

    @property
    def free_slots(self) -> int:
        """Slots that nobody holds."""
        return max(0, self.host.slots - self.leases)

    def digest_of(self, model: str) -> str | None:
        """The digest behind a canonical name here."""
        found = self.available.get(model) if self.available else None
        return found.digest if found else None


class Lease(msgspec.Struct, frozen=True, gc=False):
    """One slot held on a host, from choosing to closing. ``cold``: the model has to be loaded for it. ``until``: when it should be over.
    ``known``: the host's cache was thought to know the prompt's beginning."""

    number: int
    host: str
    digest: str | None
    cold: bool
    since: float
    until: float = 0.0
    known: bool = False


class FleetSnapshot(msgspec.Struct, frozen=True, gc=False):
    """All that one decision needs. Of the whole fleet, by digest: ``lengths`` (mean output tokens of an answer) and ``sizes`` (bytes of memory
    when loaded)."""

    taken_at: float
    hosts: tuple[HostView, ...]
    lengths: Mapping[str, float] = msgspec.field(default_factory=dict)
    sizes: Mapping[str, int] = msgspec.field(default_factory=dict)
