"""The fleet's state: the one place where polled facts, live leases and learned estimates meet.

Synchronous and owned by the event loop's thread: every method is one step, so a decision and its lease can never be torn apart.
Everything handed out is frozen; mappings are replaced whole, never changed in place.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from typing import Final

from gateway.config import ReloadsConfig
from gateway.dialects.names import canonical
from gateway.fleet.health import BreakerPolicy, Event, Health, State, after, at
from gateway.fleet.host import Host, Lease, LoadedModel, Observation, RunnerOptions
from gateway.fleet.host_state import HostState
from gateway.fleet.learned import Learned
from gateway.fleet.memory import FLEET, Memory
from gateway.fleet.prompts import Chain, best
from gateway.fleet.residence import Load, Residence, Trigger, Unload
from gateway.fleet.runners import cause as reload_cause
from gateway.fleet.runners import recast
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Usage
from gateway.remembered import Measured, What

_HEALTHY: Final = State.HEALTHY

SAMPLES_PER_SECOND: Final = 100


_NOTHING: frozenset[str] = frozenset()


def _nobody(_change: Load | Unload) -> None:
    """Is told."""


class Fleet:
    """All hosts. Raises KeyError for a host that is not configured. ``moved`` is told of models that come into memory, or leave it."""

    def __init__(
        self,
        hosts: Iterable[Host],
        policy: BreakerPolicy | None = None,
        moved: Callable[[Load | Unload], None] = _nobody,
        reloads: tuple[ReloadsConfig, ...] = (),
    ) -> None:
        self._states = {host.name: HostState(host, place) for place, host in enumerate(hosts)}
        self._stale = list(self._states.values())
        self._views: tuple[HostView, ...] = ()
        self._wakes = inf  # when the first ejection is over
        self._policy = policy or BreakerPolicy()
        self._told, self._residence = moved, Residence(self._moved)
        self._reloads = reloads
        self.clamps = any(rule.policy == "clamp" for rule in reloads)
        self._leases: dict[int, tuple[Lease, HostState]] = {}
        self._loads: dict[int, Lease] = {}  # those of them that wait for a model to be loaded
        self.version = 0  # counts changes: what was decided at a version stands while it lasts
        self._next_lease = 1
        self.learned = Learned()
        self.memory = Memory()
        self._draining: frozenset[str] = frozenset()
        self._pins: Mapping[str, frozenset[str]] = {}
        self.leases_granted = 0

    def __repr__(self) -> str:
        return f"<Fleet [{len(self._states)} hosts | {len(self._leases)} leases]>"

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The configured hosts."""
        return tuple(state.host for state in self._states.values())

    @property
    def names(self) -> Collection[str]:
        """The configured hosts' names, in order."""
        return self._states.keys()

    @property
    def lease_count(self) -> int:
        """Leases held now, on all hosts."""
        return len(self._leases)

    # -- looking ---------------------------------------------------------------------------------------------------------------

    def view(self, name: str, now: float) -> HostView:
        """One host as it is at ``now``."""
        return self.snapshot(now).hosts[self._states[name].place]

    def lists(self, model: str) -> bool:
        """Whether any host has this canonical name on its disk, as last told."""
        return any(state.available and model in state.available for state in self._states.values())

    def snapshot(self, now: float) -> FleetSnapshot:
        """The immutable whole."""
        if now >= self._wakes:
            self._wake(now)
        if self._stale:
            self._renew(now)
        learned = self.learned
        return FleetSnapshot(now, self._views, learned.lengths, learned.sizes, self._reloads)

    def _wake(self, now: float) -> None:
        """Ejections are over."""
        self._wakes = inf
        for state in self._states.values():
            self._judge(state, at(state.health, now), now)

    def _learns_of(self, state: HostState, event: Event, now: float, why: str = "") -> None:
        self._judge(state, after(at(state.health, now), event, now, self._policy, why), now)

    def _judge(self, state: HostState, health: Health, now: float) -> None:
        """This is its health from now on."""
        if now < health.until < self._wakes:
            self._wakes = health.until
        if health is not state.health:
            state.health = health
            self._touch(state)

    def _renew(self, now: float) -> None:
        views = list(self._views)
        for state in self._stale:
            if state.place < 0:
                continue
            state.fresh, view = True, state.view(self.learned, now)
            if state.place < len(views):
                views[state.place] = view
            else:  # all are stale, in their order
                views.append(view)
        self._stale.clear()
        self._views = tuple(views)

    # -- configuring -----------------------------------------------------------------------------------------------------------

    def configure(self, hosts: Iterable[Host]) -> None:
        """These are the hosts from now on, in this order. One whose URL changed is another host; leases on what is gone run out.

        Who drained a name meant the name: a host that was gone for a while drains when it is back.
        """
        before, self._states = self._states, {}
        for place, host in enumerate(hosts):
            state = before.get(host.name)
            if state is None or state.host.url != host.url:
                state = HostState(host, place)
                state.remember(self.memory.of(host))
            state.configure(host, place, self._pins.get(host.name, _NOTHING), host.name in self._draining)
            self._states[host.name] = state
        self._views, self._stale = (), list(self._states.values())
        for name, state in before.items():
            if self._states.get(name) is not state:
                state.place = -1
                self._holds(state, {})
        self._residence.configure(self._states.keys())
        self.version += 1

    # -- draining --------------------------------------------------------------------------------------------------------------

    def drain(self, names: frozenset[str]) -> None:
        """Give no new leases on these hosts, and on all others again. What runs there finishes. One that is not there drains if it comes."""
        self._draining = names
        for name, state in self._states.items():
            if state.draining != (name in names):
                state.draining = name in names
                self._touch(state)

    def pin(self, pins: Mapping[str, frozenset[str]]) -> None:
        """By host, the models (canonical names) that are to stay in memory there; also on one that comes later."""
        self._pins = pins
        for name, state in self._states.items():
            if state.pins != pins.get(name, _NOTHING):
                state.pins = pins.get(name, _NOTHING)
                self._change(state)

    def leased_elsewhere(self, counts: Mapping[str, int]) -> None:
        """What other gateways hold, by host; none where none is named."""
        for name, state in self._states.items():
            count = counts.get(name, 0)
            if count != state.elsewhere:
                state.elsewhere = count
                self._touch(state)

    def _holds(self, state: HostState, loaded: Mapping[str, LoadedModel]) -> None:
        self.learned.moved(state.loaded, loaded)
        state.loaded = loaded
        state.leaving = state.leaving.intersection(loaded)

    def _moved(self, change: Load | Unload) -> None:
        if (state := self._states.get(change.host)) is not None:
            state.moved(change)
        self._told(change)

    def _touch(self, state: HostState) -> None:
        """Something is different. What routing has worked out stands if it is only who runs there."""
        self.version += 1
        if state.fresh:
            state.fresh = False
            self._stale.append(state)

    def _change(self, state: HostState) -> None:
        """What is worked out of it is different."""
        state.memo = None
        self._touch(state)

    # -- leasing ---------------------------------------------------------------------------------------------------------------

    def is_full(self, name: str, model: str) -> bool:
        """Whether one more request for a model would have to wait at ``name``."""
        state = self._states[name]
        row = state.available.get(model) if state.available else None
        return state.slots.is_full(row.digest if row is not None else None)

    def is_loading(self, name: str) -> bool:
        """Whether ``name`` loads a model for a request of ours."""
        return bool(self._states[name].loading)

    def lease(
        self,
        name: str,
        model: str,
        options: RunnerOptions,
        now: float,
        *,
        cold: bool,
        prefix: Chain = (),
        seconds: float = 0.0,
        wanted: bool = True,
    ) -> Lease:
        """Take a slot on ``name``. A cold lease marks the model as loading, so that a burst sees it before any poll does.

        ``seconds``: how long it should be held (0: nobody knows); ``prefix``: the prompt's chain, which a slot's cache will know;
        ``wanted``: False for a load that nobody asked for.
        """
        state = self._states[name]
        digest = state.available[model].digest if state.available and model in state.available else None
        sent = state.runners.get(digest) if digest is not None else options
        reload = None
        joins = digest in state.loading
        cold = cold or joins
        if sent != options and digest not in state.leaving and (there := state.loaded.get(digest or "")) is not None:
            reload = reload_cause(options, sent, there)
            cold = cold or reload is not None
        held = state.prompts.get(digest, ()) if digest is not None and (joins or not cold) else ()
        known = bool(prefix and best(held, prefix))
        until = now + seconds if seconds else 0.0
        lease = Lease(self._next_lease, name, digest, cold, now, until, known, reload, joins)
        self._next_lease += 1
        self._leases[lease.number] = (lease, state)
        if cold:
            self._loads[lease.number] = lease
        self.leases_granted += 1
        state.slots.take(lease)
        self._touch(state)
        if digest is not None:
            if wanted:
                self.learned.asked(digest, options, now)
                state.will_know(digest, prefix, now, cold=cold and not joins)
            state.start(lease, digest, options, self.learned)
        return lease

    def release(self, lease: Lease, now: float = 0.0) -> bool:
        """Give the slot back. False if it was given back before. ``now`` matters where a load is given up with it."""
        held = self._leases.pop(lease.number, None)
        if held is None:
            return False
        state = held[1]
        state.slots.give_back(lease)
        if lease.digest in state.doomed:
            state.idle(lease.digest or "", now)
        self._touch(state)
        if self._loads.pop(lease.number, None) and lease.digest in state.loading and not self._loads_for_another(lease):
            state.ended(lease.digest or "", now)
        return True

    def _loads_for_another(self, left: Lease) -> bool:
        return any(lease.host == left.host and lease.digest == left.digest for lease in self._loads.values())

    def answered(self, lease: Lease, model: str, now: float, trigger: Trigger = Trigger.REQUEST) -> None:
        """The first byte came: the model is loaded there, whatever the last poll said. ``trigger``: if it was loaded, for what."""
        state, digest, cold = self._leases[lease.number][1], lease.digest, lease.cold
        self._loads.pop(lease.number, None)
        if digest is not None:
            since = lease.since if cold else None
            self._residence.proved(lease.host, digest, model, trigger, since=since, now=now, cause=lease.reload)
        if state.ghosts:
            state.ghosts -= {model}
            self._touch(state)
        if state.health.state is not _HEALTHY or state.health.attempt_failures:
            self._learns_of(state, Event.ATTEMPT_OK, now)
        if digest is None or (not cold and digest in state.loaded):
            return
        self._change(state)
        proof, there = state.proved(digest, model, self.learned, now), state.loaded.get(digest)
        if there is None or lease.reload is not None:
            proof = proof if there is None else recast(there, proof.context)
            self._holds(state, {**state.loaded, digest: proof})

    # -- learning --------------------------------------------------------------------------------------------------------------

    def observe(self, name: str, seen: Observation) -> None:
        """Take in what a poll returned."""
        state = self._states.get(name)
        if state is None:
            return
        self._change(state)
        self._learns_of(state, Event.POLL_OK, seen.at)
        state.version, state.latency_seconds, state.seen_at = seen.version, seen.latency_seconds, seen.at
        if seen.loaded is not None:
            before = state.loaded
            self._holds(state, state.listed(seen.loaded, seen.began))
            state.runners = {
                digest: options
                for digest, options in state.runners.items()
                if digest in state.loaded or digest in state.loading
            }
            state.prompts = {digest: known for digest, known in state.prompts.items() if digest in state.runners}
            state.measure(seen.loaded, seen.at, self.memory)
            self.learned.loaded(seen.loaded)
            state.make_room(seen, self.learned)
        if seen.available is not None:
            state.available = {canonical(model.name): model for model in seen.available}
            # What is listed still, or again, is a ghost indeed.
            state.ghosts = state.ghosts.intersection(state.available)
        if seen.loaded is not None:  # last: who is told may look at the fleet
            self._residence.seen(name, seen.loaded, state.loading, began=seen.began, now=seen.at, wall=seen.wall)
            state.told(before, self.learned, seen.at, self.memory)

    def note(self, name: str, event: Event, now: float, why: str = "") -> None:
        """Take in one piece of evidence about a host's health."""
        state = self._states.get(name)
        if state is None:
            return
        self._learns_of(state, event, now, why)
        if event is Event.UNREACHABLE:
            self._change(state)
            self._holds(state, {})
            state.runners = {}
            state.prompts = {}
            self._residence.lost(name, now)

    def forget_model(self, name: str, model: str) -> None:
        """A host said 404 for a model it had listed: believe it until its next inventory."""
        state = self._states.get(name)
        if state is None:
            return
        if state.available and model in state.available:
            state.available = {key: value for key, value in state.available.items() if key != model}
            state.ghosts |= {model}
            self._change(state)

    def forget_loaded(self, name: str, model: str, now: float) -> None:
        """A model was unloaded on our word."""
        state = self._states.get(name)
        if state is None:
            return
        if state.available and (found := state.available.get(model)):
            self._holds(state, {digest: value for digest, value in state.loaded.items() if digest != found.digest})
            self._change(state)
            self._residence.unloaded(name, found.digest, now)

    def wants_sample(self, name: str, now: float) -> bool:
        """Whether an answer of this host is worth learning from: more than SAMPLES_PER_SECOND teach nothing."""
        state = self._states.get(name)
        if state is None or now - state.sampled_at < 1 / SAMPLES_PER_SECOND:
            return False
        state.sampled_at = now
        return True

    def ran(self, lease: Lease, usage: Usage) -> None:
        """What any whole answer shows of how many run at once: two that end together are two."""
        state = self._states.get(lease.host)
        if state is not None and lease.digest is not None and state.ran(lease, lease.digest, usage, self.memory):
            self._touch(state)

    def learn(self, lease: Lease, seconds: float, usage: Usage, *, embedded: int = 0) -> None:
        """Blend in what a whole answer showed. ``seconds``: how long the lease was held; ``embedded``: of an embedding, the tokens of its prompt, estimated."""
        state = self._states.get(lease.host)
        if state is None:
            return
        state.learn(lease, seconds, usage, self.memory, embedded)
        self._touch(state)
        if lease.digest is not None and usage.output_tokens:
            self.learned.answered(lease.digest, usage.output_tokens)
            length = self.learned.lengths[lease.digest]
            self.memory.keep(FLEET, lease.digest, What.OUTPUT_TOKENS, length, lease.since + seconds)

    def learn_load(self, lease: Lease, seconds: float, now: float) -> None:
        """What a load that nobody had asked for showed: no more than how long it took."""
        state = self._states.get(lease.host)
        if state is not None and lease.digest is not None:
            state.learn_load(lease.digest, seconds, now, self.memory)
            self._touch(state)

    def recall(self, rows: Iterable[Measured]) -> None:
        """What was measured before this start: it fills in what has not been measured since."""
        self.memory.recall(rows)
        for state in self._states.values():
            state.remember(self.memory.of(state.host))
            self._change(state)
        self.learned.recall(self.memory.everywhere(What.OUTPUT_TOKENS), self.memory.everywhere(What.MEMORY_BYTES))
