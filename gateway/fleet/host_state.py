"""What the fleet holds of one host: the part that changes. Everything handed out is frozen, mappings are replaced whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.fleet.ewma import Estimate, blend
from gateway.fleet.health import Health
from gateway.fleet.host import AvailableModel, Host, Lease, LoadedModel, Observation, RunnerOptions
from gateway.fleet.learned import Learned
from gateway.fleet.memory import FLEET, Memory, Remembered
from gateway.fleet.prompts import Chain, Known
from gateway.fleet.prompts import after as prompts_after
from gateway.fleet.regret import regrets
from gateway.fleet.residence import Load, Unload, UnloadReason
from gateway.fleet.room import leaving_for, most_loaded
from gateway.fleet.slots import Slots
from gateway.fleet.snapshot import HostView
from gateway.record import Usage
from gateway.remembered import What

CACHED_PREFILL_SECONDS: Final = 0.05
EMBEDDING_LEAST_SECONDS: Final = 0.001
ENOUGH_SHARE: Final = 0.8  # of a host's memory: who had to leave though no more was taken left for another reason


@dataclass(slots=True)
class HostState:
    """Changed by the fleet alone, which says so: ``fresh`` and ``memo`` must not outlive what they rest on."""

    host: Host
    place: int  # in the snapshot; -1: no longer in the fleet
    health: Health = field(default_factory=Health)
    available: Mapping[str, AvailableModel] | None = None
    loaded: Mapping[str, LoadedModel] = field(default_factory=dict)
    loading: Mapping[str, float] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()  # of what is loaded: what may have to make room
    doomed: dict[str, str] = field(
        default_factory=dict
    )  # in use when it had to leave for that other: it goes once idle
    settled_at: float = float("-inf")  # when a load last ended: what was listed before that tells nothing of it
    runners: Mapping[str, RunnerOptions] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    service_seconds: float | None = None
    version: str = ""
    latency_seconds: float = 0.0
    seen_at: float | None = None
    sampled_at: float = float("-inf")
    draining: bool = False
    elsewhere: int = 0
    ghosts: frozenset[str] = frozenset()
    prompts: Mapping[str, tuple[Known, ...]] = field(default_factory=dict)
    load_rate: float | None = None
    vram_seen: int = 0
    models_seen: int = 0
    models_most: int = 0
    newcomer: bool = False  # a model has come since the last poll
    evicted: int = 0  # so many have left for another since then
    asked: set[str] = field(
        default_factory=set
    )  # for what requests came since then, or were there: they may say how long it stays
    full: bool = False
    pins: frozenset[str] = frozenset()  # canonical names of models that are to stay in memory
    pinned: frozenset[str] = frozenset()  # digests of those that it has
    fresh: bool = False  # as the last snapshot shows it
    memo: dict[Any, Any] | None = (
        None  # None: more has changed than who runs there, what follows must be worked out anew
    )
    vram_taken: int = 0
    regrets: Mapping[str, float] = field(default_factory=dict)
    regret: float = 0.0
    slots: Slots = field(init=False)

    def __post_init__(self) -> None:
        self.slots = Slots(self.host.slots)

    def configure(self, host: Host, place: int, pins: frozenset[str], draining: bool) -> None:
        """This is how it is configured from now on."""
        self.slots.configure(host.slots)
        self.host, self.place, self.fresh, self.memo = host, place, False, None
        self.pins, self.draining = pins, draining

    # -- leases ----------------------------------------------------------------------------------------------------------------

    def start(self, lease: Lease, digest: str, options: RunnerOptions, learned: Learned) -> None:
        """A request for this model goes there. If it has to be loaded, what must make room for it is as good as gone."""
        self.asked.add(digest)
        if lease.cold and digest not in self.loading:
            found = self._leaving_for(digest, learned, lease.since, 0.0)
            self.leaving |= found
            for other in found.intersection(self.slots.busy()) - {digest}:
                self.doomed.setdefault(other, digest)
            self.loading = {**self.loading, digest: lease.since}
            self.memo = None
        if self.runners.get(digest) != options:
            self.runners = {**self.runners, digest: options}
            self.memo = None

    def will_know(self, digest: str, prefix: Chain, now: float, *, cold: bool) -> None:
        """A prompt goes to one of the model's slots, whose caches knew others; after a load they know nothing."""
        held = () if cold else self.prompts.get(digest, ())
        known = prompts_after(held, prefix, self.slots.limit_of(digest), now)
        if known is not held:
            self.prompts = {**self.prompts, digest: known}

    # -- what it has -----------------------------------------------------------------------------------------------------------

    def proved(self, digest: str, model: str, learned: Learned, now: float) -> LoadedModel:
        """An answer came: it is loaded, with the options that were sent last, and takes as much memory as it took elsewhere, until a poll tells."""
        self.ended(digest, now)
        self.leaving -= {digest}
        self.doomed = {other: by for other, by in self.doomed.items() if by != digest}  # who had to go for it has gone
        context = dict(self.runners.get(digest, ())).get("num_ctx", 0)  # 0: the host's own
        memory = self._memory_of(digest, learned)
        return LoadedModel(model, digest, memory, memory, context, "", {})

    def idle(self, digest: str, now: float) -> None:
        """A request for it is over. If it was the last, and the model has had to leave since, it leaves now, though the load be given up long since."""
        if digest in self.doomed and digest not in self.slots.busy():
            del self.doomed[digest]
            self.leaving |= self.loaded.keys() & {digest}
            self.settled_at, self.memo = max(self.settled_at, now), None

    def ended(self, digest: str, now: float) -> None:
        """It is loaded, or will not be."""
        self.loading = {key: since for key, since in self.loading.items() if key != digest}
        self.settled_at, self.memo = max(self.settled_at, now), None

    def listed(self, loaded: Iterable[LoadedModel], began: float) -> dict[str, LoadedModel]:
        """What a poll that began then saw in memory, by digest, and what has been proved since."""
        since = self.loaded.values() if began < self.settled_at else ()
        return {model.digest: model for model in (*[one for one in since if not one.row], *loaded)}

    def make_room(self, seen: Observation, learned: Learned) -> None:
        """Judge by a poll what may have to leave for what is being loaded: nothing, once there is room for it beside what is listed."""
        if not self.loading:
            if seen.began >= self.settled_at:
                self.leaving = frozenset()
            return
        asked, self.leaving = self.leaving, frozenset()
        found = (
            asked if seen.began < self.settled_at else frozenset[str]()
        )  # for a load that is over: it shows nothing of that
        for digest, since in self.loading.items():
            self.memo = None
            found |= self._leaving_for(digest, learned, seen.at, seen.began - since, asked)
        self.leaving, self.memo = found.intersection(self.loaded), None

    def _leaving_for(
        self, digest: str, learned: Learned, now: float, age: float, asked: frozenset[str] = frozenset()
    ) -> frozenset[str]:
        if not self.loaded:
            return frozenset()
        memory = self._memory_of(digest, learned)
        return leaving_for(self.view(learned, now), digest, memory, self.slots.busy(), age, asked)

    def _memory_of(self, digest: str, learned: Learned) -> int:
        return learned.sizes.get(digest) or self.size_of(digest)

    def size_of(self, digest: str) -> int:
        """Bytes on disk; 0: not listed."""
        for model in (self.available or {}).values():
            if model.digest == digest:
                return model.size
        return 0

    def measure(self, loaded: Iterable[LoadedModel], now: float, memory: Memory) -> None:
        """What a poll saw in memory tells how much there is at least."""
        used = count = 0
        for model in loaded:
            used, count = used + model.vram, count + 1
            memory.keep(FLEET, model.digest, What.MEMORY_BYTES, model.vram, now)
        if used >= self.vram_seen:
            self.vram_seen = used
            memory.keep(self.host, "", What.VRAM_BYTES, used, now)
        if count >= self.models_seen:
            self.models_seen = count
            memory.keep(self.host, "", What.MODELS, count, now)
        if 0 < self.models_most < count:
            self._keeps_at_most(count, now, memory)

    def told(self, before: Mapping[str, LoadedModel], learned: Learned, now: float, memory: Memory) -> None:
        """A poll was taken in whole; ``before``: what was loaded until then. If models left for others though there was memory, it is their number that counts."""
        gone = [model for digest, model in before.items() if digest not in self.loaded]
        count = len(self.loaded.keys() | self.loading.keys())
        evicted = self.evicted == len(gone) > 0 and self.asked.isdisjoint([model.digest for model in gone])
        if evicted and count < most_loaded(self.models_most, self.models_seen):
            coming = [self._memory_of(digest, learned) for digest in self.loading if digest not in self.loaded]
            used = sum([model.vram for model in self.loaded.values()]) + sum(coming)
            least = used + min([model.vram for model in gone])
            if 0 < least <= ENOUGH_SHARE * max(self.host.vram_bytes, self.vram_seen):
                self._keeps_at_most(count, now, memory)
        self.newcomer, self.evicted, self.asked = False, 0, set(self.slots.busy())

    def _keeps_at_most(self, count: int, now: float, memory: Memory) -> None:
        self.models_most, self.memo = count, None
        memory.keep(self.host, "", What.MODELS_MOST, count, now)

    def moved(self, change: Load | Unload) -> None:
        """A model that had to leave when another came shows that what was ever in use is all there is."""
        if isinstance(change, Load):
            self.newcomer = True
        elif change.reason is UnloadReason.EVICTED and (self.newcomer or self.loading):
            self.full = True
            self.evicted += 1
            self.memo = None

    def ran(self, lease: Lease, digest: str, usage: Usage, memory: Memory) -> bool:
        """Take in with whom an answer ran; whether that changes how many may."""
        limit = self.slots.learn(lease, digest, usage, ours=not self.elsewhere)
        if limit is None:
            return False
        memory.keep(self.host, digest, What.PARALLEL, limit, lease.since + usage.total_seconds)
        return True

    def learn(self, lease: Lease, seconds: float, usage: Usage, memory: Memory, embedded: int) -> None:
        """Blend in what a whole answer showed. ``seconds``: how long the lease was held; ``embedded``: 0, or of an embedding the tokens of its prompt.

        Ollama counts cached prompt tokens too: a short evaluation, or one of a prompt that was known there, tells no speed.
        """
        now = lease.since + seconds
        self.service_seconds = blend(self.service_seconds, seconds)
        memory.keep(self.host, "", What.SERVICE_SECONDS, self.service_seconds, now)
        if lease.digest is None:
            return
        self.memo = None
        if lease.cold and not lease.joins and usage.load_seconds:
            self.learn_load(lease.digest, usage.load_seconds, now, memory)
        if embedded:
            prefill_rate = _embedding_rate(usage, embedded, 0.0 if lease.cold else seconds)
        else:
            cached = lease.known or usage.prefill_seconds < CACHED_PREFILL_SECONDS
            prefill_rate = None if cached else usage.input_tokens / usage.prefill_seconds
        estimate = self.estimates.get(lease.digest, Estimate()).after(
            None,
            prefill_rate,
            usage.output_tokens / usage.decode_seconds if usage.decode_seconds else None,
        )
        self.estimates = {**self.estimates, lease.digest: estimate}
        memory.model(self.host, lease.digest, estimate, now)

    def learn_load(self, digest: str, seconds: float, now: float, memory: Memory) -> None:
        """A model took so long to load."""
        self.memo = None
        if size := self.size_of(digest):
            self.load_rate = blend(self.load_rate, size / seconds)
            memory.keep(self.host, "", What.LOAD_RATE, self.load_rate, now)
        estimate = self.estimates.get(digest, Estimate()).after(seconds, None, None)
        self.estimates = {**self.estimates, digest: estimate}
        memory.keep(self.host, digest, What.LOAD_SECONDS, estimate.load_seconds, now)

    def remember(self, known: Remembered) -> None:
        """What was measured before, where nothing has been measured since."""
        self.service_seconds = self.service_seconds or known.service_seconds
        self.load_rate = self.load_rate or known.load_rate
        self.vram_seen = max(self.vram_seen, known.vram_bytes)
        self.models_seen = max(self.models_seen, known.models)
        self.models_most = self.models_most or known.models_most
        self.estimates = {**known.estimates, **self.estimates}
        self.slots.remember(known.parallel)

    def view(self, learned: Learned, now: float) -> HostView:
        """As routing sees it."""
        if self.memo is None:
            self.memo = {}
            staying = {digest: model for digest, model in self.loaded.items() if digest not in self.leaving}
            self.vram_taken = sum([model.vram for model in staying.values()])
            self.regrets = regrets(
                *(staying, self.runners, self.estimates, self.load_rate, learned.demand, learned.copies, now)
            )
            self.regret = sum(self.regrets.values())
            self.pinned = frozenset(
                [model.digest for name in self.pins if (model := (self.available or {}).get(name)) is not None]
            )
        return HostView(
            self.host,
            self.health,
            self.available,
            self.loaded,
            self.loading,
            self.runners,
            self.slots.leases,
            self.slots.leased_at,
            self.estimates,
            self.service_seconds,
            self.version,
            self.latency_seconds,
            self.seen_at,
            self.draining,
            self.elsewhere,
            self.ghosts,
            tuple(self.slots.ends),
            self.prompts,
            self.load_rate,
            self.vram_seen,
            self.models_seen,
            self.models_most,
            self.full,
            self.vram_taken,
            self.regrets,
            self.regret,
            self.pinned,
            self.memo,
            self.slots.count,
            self.slots.limits,
            self.slots.crowded(),
            self.leaving,
        )


def _embedding_rate(usage: Usage, tokens: int, seconds: float) -> float | None:
    """Tokens of an embedding's prompt per second. A host tells no more than how long all of it took, if that: but for the load, that was reading.

    ``tokens``: as estimated; ``seconds``: as seen here, 0 where a load is part of it.
    """
    spent = usage.total_seconds or seconds
    if not spent:
        return None
    return (usage.input_tokens or tokens) / max(EMBEDDING_LEAST_SECONDS, spent - usage.load_seconds)
