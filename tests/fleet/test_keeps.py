"""Which models are to be in memory, and what is to be done for it: case by case, pure."""

from typing import Any

import pytest

from gateway.config import WarmConfig
from gateway.fleet.demand import Demand
from gateway.fleet.health import Health, State
from gateway.fleet.host import Host
from gateway.fleet.keeps import AGAIN_MOST_SECONDS, AGAIN_SECONDS, Keep, KeepState, Planner, Tried
from gateway.fleet.snapshot import HostView
from tests.builders import OTHER, TEXT
from tests.fleet.builders import SIZE, changed, digest_of, loaded, snapshot, view

DIGEST, OTHERS = digest_of(TEXT), digest_of(OTHER)
NOW, WALL = 1000.0, 1_790_000_000.0
FOREVER, SOON, LATER = "2319-01-01T00:00:00Z", "2026-09-21T14:13:30Z", "2026-09-21T14:20:00Z"
"""At WALL it is 14:13:20 on that day."""


def host(name: str = "gpu1", vram: float = 0.0, *, slots: int = 1, **more: Any) -> HostView:
    """A view of a host with so many times the memory of a model."""
    made = view(name, slots=slots, **more)
    taken = sum(model.vram for model in made.loaded.values())
    configured = Host(name, f"http://{name}", slots, vram_bytes=int(vram * SIZE))
    return changed(made, host=configured, vram_taken=taken)


def plan(
    *hosts: HostView,
    pins: dict[str, list[str]] | None = None,
    warm: tuple[WarmConfig, ...] = (),
    waiting: tuple[tuple[str, str], ...] = (),
    tried: dict[tuple[str, str], Tried] | None = None,
    rates: dict[str, float] | None = None,
) -> list[tuple[str, Keep]]:
    """What is wished of each host."""
    demand = {(digest_of(model), ()): Demand(rate, NOW) for model, rate in (rates or {}).items()}
    planner = Planner(snapshot(*hosts, at=NOW), waiting, tried or {}, demand, WALL)
    return [(wish.view.name, wish.keep) for wish in planner.plan(pins or {}, warm)]


def ill(state: State) -> Health:
    """A host in that state."""
    return Health(state, "")


BESIDE = {"holds": [OTHER], "pinned": frozenset([OTHERS])}
PINNED: dict[str, tuple[HostView, dict[str, Any], KeepState, str]] = {
    "nothing is in its way": (host(), {}, KeepState.DUE, "next"),
    "a suspect host": (host(health=ill(State.SUSPECT)), {}, KeepState.DUE, "next"),
    "it is there, for ever": (host(holds=[loaded(TEXT, expires_at=FOREVER)]), {}, KeepState.LOADED, ""),
    "it is there for a while": (host(holds=[loaded(TEXT, expires_at=LATER)]), {}, KeepState.RENEWED, "stay"),
    "it was told to stay just now": (
        host(holds=[loaded(TEXT, expires_at=LATER)]),
        {"tried": {("gpu1", TEXT): Tried(0, NOW - 1)}},
        KeepState.LOADED,
        "",
    ),
    "it is there for a while, and works": (
        host(holds=[loaded(TEXT, expires_at=LATER)], leases=1),
        {},
        KeepState.LOADED,
        "",
    ),
    "it is there, no poll has told until when": (host(holds=[loaded(TEXT)]), {}, KeepState.LOADED, ""),
    "it is being loaded": (host(loading={DIGEST: 1.0}), {}, KeepState.LOADING, "being loaded"),
    "another is being loaded": (host(slots=2, loading={OTHERS: 1.0}), {}, KeepState.WAITING, "loads another"),
    "the host drains": (host(draining=True), {}, KeepState.LEFT, "draining"),
    "the host is ejected": (host(health=ill(State.EJECTED)), {}, KeepState.LEFT, "ejected"),
    "the host is on trial": (host(health=ill(State.TRIAL)), {}, KeepState.LEFT, "trial"),
    "the host has told nothing": (host(has=None), {}, KeepState.LEFT, "told"),
    "the host has not got it": (host(has=[OTHER]), {}, KeepState.LEFT, "pull it"),
    "somebody waits for the host": (host(), {"waiting": ((OTHER, ""),)}, KeepState.WAITING, "wait"),
    "somebody waits for it by name": (host(), {"waiting": ((OTHER, "gpu1"),)}, KeepState.WAITING, "wait"),
    "somebody waits for another host": (host(), {"waiting": ((OTHER, "gpu2"),)}, KeepState.DUE, "next"),
    "somebody waits for a model that it has not": (host(), {"waiting": (("m9", ""),)}, KeepState.DUE, "next"),
    "it works": (host(leases=1), {}, KeepState.WAITING, "slot"),
    "another gateway's request is there": (host(elsewhere=1), {}, KeepState.WAITING, "slot"),
    "it works, and has room": (host(vram=2.0, slots=2, leases=1, holds=[OTHER]), {}, KeepState.DUE, "next"),
    "it works, without room": (host(vram=1.0, slots=2, leases=1, holds=[OTHER]), {}, KeepState.WAITING, "no room"),
    "others make room": (host(vram=1.0, holds=[OTHER]), {}, KeepState.DUE, "next"),
    "others are pinned as well": (host(vram=1.0, **BESIDE), {}, KeepState.WAITING, "other pinned"),
    "others are pinned, nobody knows the memory": (host(**BESIDE), {}, KeepState.DUE, "next"),
    "it failed a moment ago": (
        host(),
        {"tried": {("gpu1", TEXT): Tried(1, NOW - 1, "no disk")}},
        KeepState.FAILED,
        "no disk; tried 1 times, again in 9 s",
    ),
    "it did not stay": (host(), {"tried": {("gpu1", TEXT): Tried(2, NOW - 1)}}, KeepState.FAILED, "did not stay"),
    "it failed a while ago": (host(), {"tried": {("gpu1", TEXT): Tried(1, NOW - 11, "x")}}, KeepState.DUE, "next"),
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned(name: str) -> None:
    """Each case of the table, and some of their edges."""
    one, more, state, why = PINNED[name]
    ((where, keep),) = plan(one, host("gpu2"), pins={"gpu1": [TEXT]}, **more)
    assert (where, keep.model, keep.kind, keep.state) == ("gpu1", TEXT, "pin", state)
    assert why in keep.why
    assert bool(keep.why) is bool(why)


def test_tries_are_further_and_further_apart() -> None:
    """To a bound."""
    waits = [Tried(times, 0.0).again_at for times in (1, 2, 3, 99)]
    assert waits == [AGAIN_SECONDS, 2 * AGAIN_SECONDS, 4 * AGAIN_SECONDS, AGAIN_MOST_SECONDS]


HELD = loaded(TEXT, expires_at=LATER)
CROWD = {"vram": 1.0, "holds": [OTHER]}
WARM: dict[str, tuple[list[HostView], int, dict[str, Any], list[tuple[str, KeepState]]]] = {
    "nowhere yet": ([host("a"), host("b")], 1, {}, [("a", KeepState.DUE)]),
    "on as many as are wished": (
        [host("a", holds=[HELD]), host("b"), host("c", holds=[HELD])],
        2,
        {},
        [("a", KeepState.LOADED), ("c", KeepState.LOADED)],
    ),
    "on more": ([host("a", holds=[HELD]), host("b", holds=[HELD])], 1, {}, [("a", KeepState.LOADED)]),
    "on too few": (
        [host("a", holds=[HELD]), host("b")],
        2,
        {},
        [("a", KeepState.LOADED), ("b", KeepState.DUE)],
    ),
    "one is loading it": ([host("a", loading={DIGEST: 1.0}), host("b")], 1, {}, [("a", KeepState.LOADING)]),
    "its time is up soon": ([host(holds=[loaded(TEXT, expires_at=SOON)])], 1, {}, [("gpu1", KeepState.RENEWED)]),
    "hosts that cannot": (
        [host("a", draining=True), host("b", has=[OTHER]), host("c", health=ill(State.EJECTED)), host("d")],
        2,
        {},
        [("d", KeepState.DUE)],
    ),
    "one that drains holds it": ([host("a", holds=[HELD], draining=True), host("b")], 1, {}, [("b", KeepState.DUE)]),
    "where there is room": ([host("a", **CROWD), host("b", 2.0, holds=[OTHER])], 1, {}, [("b", KeepState.DUE)]),
    "where one works": ([host("a", 2.0, slots=2, leases=1), host("b", 2.0)], 1, {}, [("b", KeepState.DUE)]),
    "for one that nobody asks for": ([host(**CROWD)], 1, {}, [("gpu1", KeepState.DUE)]),
    "not for one that is asked for more": (
        [host(**CROWD)],
        1,
        {"rates": {TEXT: 0.1, OTHER: 0.2}},
        [("gpu1", KeepState.WAITING)],
    ),
    "for one that is asked for less": (
        [host(**CROWD)],
        1,
        {"rates": {TEXT: 0.2, OTHER: 0.1}},
        [("gpu1", KeepState.DUE)],
    ),
    "a second copy is worth half": (
        [host("a", holds=[HELD]), host("b", **CROWD)],
        2,
        {"rates": {TEXT: 0.3, OTHER: 0.2}},
        [("a", KeepState.LOADED), ("b", KeepState.WAITING)],
    ),
    "one that was asked for long ago": ([host(**CROWD)], 1, {"rates": {OTHER: 1e-5}}, [("gpu1", KeepState.DUE)]),
    "not for one that is pinned": (
        [host(**CROWD, pinned=frozenset([OTHERS]))],
        1,
        {"rates": {TEXT: 9.0}},
        [("gpu1", KeepState.WAITING)],
    ),
    "elsewhere, after a failure": (
        [host("a"), host("b")],
        1,
        {"tried": {("a", TEXT): Tried(1, NOW, "x")}},
        [("b", KeepState.DUE)],
    ),
}


@pytest.mark.parametrize("name", WARM)
def test_warm(name: str) -> None:
    """Where it goes, and what it may push out."""
    hosts, copies, more, expected = WARM[name]
    found = plan(*hosts, warm=(WarmConfig(TEXT.upper(), copies),), **more)
    assert [(where, keep.state) for where, keep in found] == expected
    assert {keep.model for _, keep in found} <= {TEXT}


def test_two_warm_models_do_not_push_each_other_out() -> None:
    """While nobody asks for either; one that is asked for may."""
    both = (WarmConfig(TEXT), WarmConfig(OTHER))
    one = host(vram=1.0, holds=[loaded(OTHER, expires_at=LATER)])
    assert [keep.state for _, keep in plan(one, warm=both)] == [KeepState.WAITING, KeepState.LOADED]
    assert [keep.state for _, keep in plan(one, warm=both, rates={TEXT: 0.1})] == [KeepState.DUE, KeepState.LOADED]
