"""Which models are to be in which host's memory, and what is to be done for it now: pure, from one snapshot.

A pin names its host. A warm model is for so many hosts; it goes where there is room, or else where nothing is loaded that is asked for more. For each:

| the host …                                           | state   |
|------------------------------------------------------|---------|
| holds it, for long enough                            | loaded  |
| holds it, but not for long                           | renewed |
| loads it                                             | loading |
| drains, is ejected or on trial, or has not got it    | left    |
| is waited for, loads another, or works without room  | waiting |
| was tried in vain, and not long enough ago           | failed  |
| none of these                                        | due     |
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from gateway.config import WarmConfig
from gateway.dialects.names import canonical
from gateway.doc import doc
from gateway.fleet.demand import Demand
from gateway.fleet.health import State
from gateway.fleet.host import AvailableModel, LoadedModel, RunnerOptions
from gateway.fleet.residence import expiry
from gateway.fleet.room import Room, room_for
from gateway.fleet.snapshot import FleetSnapshot, HostView

USABLE = (State.HEALTHY, State.SUSPECT)
SOON_SECONDS = 75.0  # a warm model whose time is up then is asked to stay
LONG_SECONDS = 365 * 86_400.0  # a pinned one shall stay for longer than that
AGAIN_SECONDS, AGAIN_MOST_SECONDS = 10.0, 600.0
SETTLED_SECONDS = 600.0  # what has stayed for so long starts afresh
RENEW_SECONDS = 30.0
QUIET = 1e-4  # requests a second: nobody asks


class KeepKind(StrEnum):
    """Why a model is kept in memory (a metric label)."""

    PIN = "pin"
    WARM = "warm"


class KeepState(StrEnum):
    """How that stands."""

    LOADED = "loaded"
    RENEWED = "renewed"
    LOADING = "loading"
    LEFT = "left"
    WAITING = "waiting"
    FAILED = "failed"
    DUE = "due"


class Keep(msgspec.Struct, frozen=True, gc=False):
    """A model that is to be in one host's memory."""

    model: Annotated[str, doc("the model's full name")]
    kind: Annotated[KeepKind, doc("`pin`: it is pinned to this host; `warm`: one of the copies that are kept warm")]
    state: Annotated[
        KeepState,
        doc(
            "`loaded`; `renewed`: loaded, and told to stay; `loading`; `due`: loaded next; `waiting`: for requests or other loads there; `failed`: tried "
            "in vain, and again later; `left`: the host drains, is not well, or has not got the model"
        ),
    ]
    why: Annotated[str, doc("the same in words; empty where it is loaded")] = ""


class Tried(NamedTuple):
    """How often a load was tried since the model last stayed, when last, and what came of it."""

    times: int = 0
    at: float = float("-inf")
    why: str = ""

    @property
    def again_at(self) -> float:
        """When it may be tried again."""
        return self.at + min(AGAIN_MOST_SECONDS, AGAIN_SECONDS * 2.0 ** min(self.times - 1, 16))


class Wish(NamedTuple):
    """What is wished of one host."""

    view: HostView
    keep: Keep


UNTRIED = Tried()
Place = tuple[str, str]


class Planner:
    """One look: ``waiting``: the (model, host) that requests wait for, no host: any; ``tried`` by (host, model); ``wall``: Unix seconds of the snapshot."""

    def __init__(
        self,
        snapshot: FleetSnapshot,
        waiting: Collection[tuple[str, str]],
        tried: Mapping[Place, Tried],
        demand: Mapping[tuple[str, RunnerOptions], Demand],
        wall: float,
    ) -> None:
        self._snapshot = snapshot
        self._now, self._wall = snapshot.taken_at, wall
        self._waiting = waiting
        self._tried = tried
        self._rates: defaultdict[str, float] = defaultdict(float)
        for (digest, _), asked in demand.items():
            self._rates[digest] += asked.rate(self._now)

    def plan(self, pins: Mapping[str, Collection[str]], warm: Iterable[WarmConfig]) -> list[Wish]:
        """Pins first. ``pins``: canonical names by host."""
        wishes = [
            Wish(view, self._pinned(view, model)) for view in self._snapshot.hosts for model in pins.get(view.name, ())
        ]
        rules = list(warm)
        kept = {canonical(rule.model) for rule in rules}
        for rule in rules:
            wishes += self._warm(canonical(rule.model), rule.copies, kept)
        return wishes

    # -- pins ------------------------------------------------------------------------------------------------------------------

    def _pinned(self, view: HostView, model: str) -> Keep:
        row = view.available.get(model) if view.available else None
        if left := _left(view, row):
            return Keep(model, KeepKind.PIN, KeepState.LEFT, left)
        assert row is not None
        if (there := self._there(view, row, model, KeepKind.PIN, LONG_SECONDS)) is not None:
            return there
        room = self._room(view, row)
        full = "other pinned models leave no room" if room.pins else ""
        return self._due(view, model, KeepKind.PIN, room, full)

    # -- warm ------------------------------------------------------------------------------------------------------------------

    def _warm(self, model: str, copies: int, kept: Collection[str]) -> list[Wish]:
        having = [
            (view, row)
            for view in self._snapshot.hosts
            if view.available and (row := view.available.get(model)) is not None and not _left(view, row)
        ]
        held: list[Wish] = []
        for view, row in having:
            there = self._there(view, row, model, KeepKind.WARM, SOON_SECONDS)
            if there is not None and len(held) < copies:
                held.append(Wish(view, there))
        holders = {wish.view.name for wish in held}
        rest = [(view, row) for view, row in having if view.name not in holders and not _holds(view, row)]
        found = [(self._room(view, row), view, row) for view, row in rest]
        found.sort(key=lambda one: (one[0].share, one[1].leases, one[1].regret))
        fit = [
            Wish(view, self._due(view, model, KeepKind.WARM, room, self._crowded(view, row, room, len(held), kept)))
            for room, view, row in found
        ]
        order = (KeepState.DUE, KeepState.WAITING, KeepState.FAILED)
        fit.sort(key=lambda wish: order.index(wish.keep.state))
        return held + fit[: copies - len(held)]

    def _crowded(self, view: HostView, row: AvailableModel, room: Room, copies: int, kept: Collection[str]) -> str:
        """Why nothing may leave for one more copy; empty: it may, or nothing has to."""
        if not room.share:
            return ""
        if room.pins:
            return "there is no room beside what is pinned"
        own = self._rate(row.digest, copies + 1)
        for digest, model in view.loaded.items():
            theirs = self._rate(digest, self._holders(digest))
            if theirs > own or (theirs == own and canonical(model.name) in kept):
                return f"there is no room beside {model.name}, which is asked for as much or more"
        return ""

    def _rate(self, digest: str, copies: int) -> float:
        rate = self._rates[digest] / max(1, copies)
        return rate if rate > QUIET else 0.0

    def _holders(self, digest: str) -> int:
        return sum(digest in view.loaded for view in self._snapshot.hosts)

    # -- both ------------------------------------------------------------------------------------------------------------------

    def _room(self, view: HostView, row: AvailableModel) -> Room:
        return room_for(view, row.digest, self._snapshot.sizes.get(row.digest, row.size))

    def _there(self, view: HostView, row: AvailableModel, model: str, kind: KeepKind, seconds: float) -> Keep | None:
        """If it is loaded, or under way."""
        if row.digest in view.loading:
            return Keep(model, kind, KeepState.LOADING, "it is being loaded")
        loaded = view.loaded.get(row.digest)
        if loaded is None:
            return None
        tried = self._tried.get((view.name, model), UNTRIED)
        if self._ends_within(loaded, seconds) and not self._busy(view) and self._now >= tried.at + RENEW_SECONDS:
            return Keep(model, kind, KeepState.RENEWED, "it is told to stay")
        return Keep(model, kind, KeepState.LOADED)

    def _ends_within(self, loaded: LoadedModel, seconds: float) -> bool:
        ends = expiry(loaded.expires_at)
        return ends is not None and ends < self._wall + seconds

    def _busy(self, view: HostView) -> bool:
        """While it is used a model stays, and its time is stale."""
        return view.leases + view.elsewhere > 0 or self._waited_for(view)

    def _waited_for(self, view: HostView) -> bool:
        return any(host in ("", view.name) and model in (view.available or {}) for model, host in self._waiting)

    def _due(self, view: HostView, model: str, kind: KeepKind, room: Room, full: str) -> Keep:
        tried = self._tried.get((view.name, model), UNTRIED)
        if tried.times and self._now < tried.again_at:
            again = f"tried {tried.times} times, again in {tried.again_at - self._now:.0f} s"
            return Keep(model, kind, KeepState.FAILED, f"{tried.why or 'it did not stay'}; {again}")
        taken = view.leases + view.elsewhere
        waits = (
            full
            or ("requests wait for the host" if self._waited_for(view) else "")
            or ("the host loads another model" if view.loading else "")
            or ("every slot of the host is taken" if taken >= view.slots else "")
            or ("the host works, and has no room beside what it holds" if taken and room.share else "")
        )
        return Keep(model, kind, KeepState.WAITING if waits else KeepState.DUE, waits or "it is loaded next")


def _holds(view: HostView, row: AvailableModel) -> bool:
    return row.digest in view.loaded or row.digest in view.loading


def _left(view: HostView, row: AvailableModel | None) -> str:
    """Why nothing is done there at all; empty: no reason."""
    if view.draining:
        return "the host is draining"
    if view.health.state not in USABLE:
        return f"the host is {view.health.state}"
    if view.available is None:
        return "the host has not told its models"
    return "" if row is not None else "the host has not got it: pull it there"
