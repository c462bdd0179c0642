"""What one look at a gateway saw: the fields of its answers that are shown. What else they hold is passed over, so that versions may differ."""

from dataclasses import dataclass

import msgspec

from gateway.top.scrape import Scrape


class SeenModel(msgspec.Struct, frozen=True):
    """A model in a host's memory; sizes in bytes, the context in tokens."""

    name: str = ""
    size: float = 0
    size_vram: float = 0
    context_length: float = 0
    expires_at: str | None = None  # ISO 8601; None: not known yet


class SeenKept(msgspec.Struct, frozen=True):
    """A model that is to stay in a host's memory, and how that stands."""

    model: str
    kind: str = ""
    state: str = ""


class SeenHost(msgspec.Struct, frozen=True):
    """A host, as its row in ``/api/fleet`` has it."""

    name: str
    url: str = ""
    health: str = ""
    why: str = ""
    draining: bool = False
    version: str = ""
    latency_seconds: float = 0.0
    seen_seconds_ago: float | None = None
    slots: int = 1
    leases: int = 0
    models_loaded: tuple[SeenModel, ...] = ()
    models_kept: tuple[SeenKept, ...] = ()

    @property
    def models(self) -> tuple[SeenModel, ...]:
        """What is in its memory, then what is to be there and is not: that has no size."""
        there = {model.name.lower() for model in self.models_loaded}
        return (*self.models_loaded, *(SeenModel(kept.model) for kept in self.models_kept if kept.model not in there))

    def kept(self, model: SeenModel) -> SeenKept | None:
        """Why it is to stay, if it is."""
        return next((kept for kept in self.models_kept if kept.model == model.name.lower()), None)

    @property
    def well(self) -> bool:
        """Whether it is healthy; it may drain."""
        return self.health == "healthy"


class SeenFinding(msgspec.Struct, frozen=True):
    """What is amiss with the fleet."""

    kind: str
    text: str


class SeenFleet(msgspec.Struct, frozen=True):
    """``/api/fleet``."""

    hosts: tuple[SeenHost, ...]
    findings: tuple[SeenFinding, ...] = ()


class SeenGeneration(msgspec.Struct, frozen=True):
    """A generation in flight."""

    id: str
    model: str
    phase: str
    host: str | None = None
    client: str = ""
    age_seconds: float = 0.0
    tokens: int = 0  # of output, so far


class SeenGenerations(msgspec.Struct, frozen=True):
    """``/api/generations``: oldest first."""

    generations: tuple[SeenGeneration, ...]


class SeenReadiness(msgspec.Struct, frozen=True):
    """``/readyz``."""

    ready: bool
    draining: bool = False
    storage: str = "none"


@dataclass(frozen=True, slots=True)
class Look:
    """One look. ``at``: monotonic seconds, ``wall``: Unix seconds."""

    at: float
    wall: float
    fleet: SeenFleet
    generations: tuple[SeenGeneration, ...]
    readiness: SeenReadiness
    scrape: Scrape

    @property
    def queued(self) -> int:
        """Generations that wait for a slot."""
        return sum(generation.phase == "queued" for generation in self.generations)
