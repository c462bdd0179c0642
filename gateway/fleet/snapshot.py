"""What routing looks at: the fleet at one moment. Nobody changes what is here, but for ``memo``; plain classes, because a decision reads thousands of
their attributes, and compiled code reads those of its own classes at once.
"""

from collections.abc import Mapping
from typing import Any

from gateway.config import ReloadsConfig
from gateway.fleet.ewma import Estimate
from gateway.fleet.health import Health
from gateway.fleet.host import AvailableModel, Host, LoadedModel, RunnerOptions
from gateway.fleet.prompts import Known

_NOTHING: Mapping[str, Any] = {}


class HostView:
    """One host as a decision sees it: configuration, health, polled facts, live leases, learned estimates.

    Beside what it is made of: its ``name``, ``most`` requests that may be out at once (one more of a model may be tried than
    there are ``slots``), the ``state`` of its health and how many ``failures`` count against it.
    """

    __slots__ = (
        *(
            "available",
            "crowded",
            "draining",
            "elsewhere",
            "ends",
            "estimates",
            "failures",
            "full",
            "ghosts",
            "health",
            "host",
            "latency_seconds",
            "leaving",
        ),
        *(
            "leased_at",
            "leases",
            "load_rate",
            "loaded",
            "loading",
            "memo",
            "models_most",
            "models_seen",
            "most",
            "name",
            "parallel",
            "pinned",
            "prompts",
            "regret",
            "regrets",
        ),
        *("runners", "seen_at", "service_seconds", "slots", "state", "version", "vram_seen", "vram_taken"),
    )

    def __init__(
        self,
        host: Host,
        health: Health,
        available: Mapping[str, AvailableModel] | None,  # by canonical name; None: never told
        loaded: Mapping[str, LoadedModel],  # by digest
        loading: Mapping[str, float] = _NOTHING,  # digest → since when
        runners: Mapping[str, RunnerOptions] = _NOTHING,  # digest → runner options last sent
        leases: int = 0,
        leased_at: float = float("-inf"),  # when a slot was last taken
        estimates: Mapping[str, Estimate] = _NOTHING,  # by digest
        service_seconds: float | None = None,
        version: str = "",
        latency_seconds: float = 0.0,
        seen_at: float | None = None,
        draining: bool = False,
        elsewhere: int = 0,  # leases that other gateways hold here, as last told
        ghosts: frozenset[str] = frozenset(),  # models listed by /api/tags that requests were told are not there
        ends: tuple[float, ...] = (),  # when each lease should be over
        prompts: Mapping[str, tuple[Known, ...]] = _NOTHING,  # digest → what its slots know
        load_rate: float | None = None,  # bytes per second, over all models that were loaded here
        vram_seen: int = 0,  # the most memory that models were seen to use at once
        models_seen: int = 0,  # the most models that were seen loaded at once
        models_most: int = 0,  # as many as it keeps loaded at most, as was found out; 0: it was not
        full: bool = False,  # models had to leave for others: the most that was seen is all there is
        vram_taken: int = 0,  # by what is loaded now, and does not leave
        regrets: Mapping[str, float] = _NOTHING,  # digest → what others would wait if it left
        regret: float = 0.0,  # their sum
        pinned: frozenset[str] = frozenset(),  # digests of models that are to stay in memory here
        memo: dict[Any, Any] | None = None,  # what routing has worked out of it
        slots: int = 0,  # requests that may be out at once; 0: as configured
        parallel: Mapping[str, int] = _NOTHING,  # digest → requests for it that run at once, where that was found out
        crowded: Mapping[str, float] = _NOTHING,  # digest → when one of these should be over, where as many are out
        leaving: frozenset[str] = frozenset(),  # of what is loaded, what may have to make room for what is being loaded
    ) -> None:
        self.host, self.name, self.slots = host, host.name, slots or host.slots or 1
        self.parallel, self.crowded = parallel, crowded
        self.most = max(self.slots, *parallel.values()) if parallel else self.slots
        self.health, self.state, self.failures = health, health.state, health.attempt_failures + health.poll_failures
        self.available = available
        self.loaded, self.loading, self.runners = loaded, loading, runners
        self.leases, self.leased_at, self.elsewhere, self.ends = leases, leased_at, elsewhere, ends
        self.estimates, self.service_seconds, self.load_rate = estimates, service_seconds, load_rate
        self.version, self.latency_seconds, self.seen_at = version, latency_seconds, seen_at
        self.draining, self.ghosts, self.prompts = draining, ghosts, prompts
        self.vram_seen, self.models_seen, self.vram_taken, self.full = vram_seen, models_seen, vram_taken, full
        self.leaving, self.models_most = leaving, models_most
        self.regrets, self.regret, self.pinned = regrets, regret, pinned
        self.memo: dict[Any, Any] = {} if memo is None else memo

    def __repr__(self) -> str:
        return f"<HostView {self.name} [{self.state} | {self.leases} of {self.slots} leased]>"

    def is_full(self, model: str) -> bool:
        """Whether one more request for a canonical name would have to wait there."""
        digest = self.digest_of(model) or ""
        return self.leases >= max(self.slots, self.parallel.get(digest, 0)) or digest in self.crowded

    def digest_of(self, model: str) -> str | None:
        """The digest behind a canonical name here."""
        found = self.available.get(model) if self.available else None
        return found.digest if found else None


class FleetSnapshot:
    """All that one decision needs. Of the whole fleet, by digest: ``lengths`` (mean output tokens of an answer) and ``sizes`` (bytes of memory
    when loaded). ``reloads``: the rules of what may cause a load."""

    __slots__ = ("hosts", "lengths", "reloads", "sizes", "taken_at")

    def __init__(
        self,
        taken_at: float,
        hosts: tuple[HostView, ...],
        lengths: Mapping[str, float] = _NOTHING,
        sizes: Mapping[str, int] = _NOTHING,
        reloads: tuple[ReloadsConfig, ...] = (),
    ) -> None:
        self.taken_at = taken_at
        self.hosts = hosts
        self.lengths = lengths
        self.sizes = sizes
        self.reloads = reloads

    def __repr__(self) -> str:
        return f"<FleetSnapshot [{len(self.hosts)} hosts] at {self.taken_at:.3f}>"
