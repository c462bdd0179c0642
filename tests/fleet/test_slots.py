"""Slots are counted, over all models and for each; how many there are follows from the configuration and from what answers tell."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.host import Host, Lease
from gateway.fleet.parallel import WAIT_SECONDS
from gateway.fleet.registry import Fleet
from gateway.fleet.slots import ENDED_MOST, MODELS_MOST, Slots
from gateway.record import Usage
from gateway.remembered import What
from tests.builders import OTHER, TEXT
from tests.fleet.builders import digest_of, host, observation

numbers = itertools.count(1000)


def lease(number: int = 1, digest: str | None = "a", until: float = 0.0, since: float = 0.0) -> Lease:
    """One slot."""
    return Lease(number, "gpu1", digest, False, since, until)


def served(slots: Slots, *told: Usage, digest: str = "a", since: float = 0.0, ours: bool = True) -> list[int | None]:
    """So many are sent at once; what each tells in the end."""
    leases = [lease(next(numbers), digest, since=since) for _ in told]
    for one in leases:
        slots.take(one)
    learned = []
    for one, usage in zip(leases, told, strict=True):
        slots.give_back(one)
        learned.append(slots.learn(one, digest, usage, ours=ours))
    return learned


def usage(total: float, worked: float = 4.0, load: float = 0.0) -> Usage:
    """What the last chunk says."""
    return Usage(10, 20, load_seconds=load, prefill_seconds=1.0, decode_seconds=worked - 1.0, total_seconds=total)


def too_many(slots: Slots, digest: str = "a") -> None:
    """Three answers that had to wait beside one other."""
    for number in range(3):
        served(slots, usage(4.0), usage(8.0), digest=digest, since=20.0 * number)


def test_taken_and_given_back() -> None:
    """With their models and their ends."""
    slots = Slots(3)
    leases = lease(1, "a", 5.0), lease(2, "a"), lease(3, None, 7.0)
    for one in leases:
        slots.take(one)
    assert (slots.leases, slots.ends, slots.is_full("b")) == (3, [5.0, 7.0], True)
    for one in leases:
        slots.give_back(one)
    assert (slots.leases, slots.ends, slots.is_full("b")) == (0, [], False)


def test_one_model_runs_fewer_at_once() -> None:
    """Its requests wait for each other, and no others do; when one of these should be over is told."""
    slots = Slots(4)
    too_many(slots)
    assert (slots.count, slots.limits, slots.limit_of("a"), slots.limit_of("b")) == (4, {"a": 1}, 1, 4)
    slots.take(lease(1, "a", 5.0))
    assert (slots.is_full("a"), slots.is_full("b"), slots.is_full(None)) == (True, False, False)
    assert slots.crowded() == {"a": 5.0}
    slots.give_back(lease(1, "a", 5.0))
    assert slots.crowded() == {}


def run_beside(slots: Slots, count: int, times: int, digest: str = "a") -> None:
    """So many answers run together, so often."""
    for time in range(times):
        served(slots, *[usage(4.0)] * count, digest=digest, since=100.0 * time)


def test_found_out() -> None:
    """As many as any model was proved to run; the one that is tried is that model's alone."""
    slots = Slots(0)
    assert (slots.count, slots.limit_of("a")) == (1, 1)
    run_beside(slots, 1, 3)
    assert (slots.count, slots.limits) == (1, {"a": 2})
    slots.take(lease(1, "a"))
    assert (slots.is_full("a"), slots.is_full("b")) == (False, True)
    run_beside(slots, 2, 3)
    assert (slots.count, slots.limits) == (2, {"a": 3})
    assert (slots.is_full("a"), slots.is_full("b")) == (False, False)


@pytest.mark.parametrize(
    "told",
    [
        Usage(10, 20, decode_seconds=3.0),  # /v1: seen by the gateway itself
        Usage(10, 0, total_seconds=9.0, load_seconds=0.1),  # embeddings
    ],
)
def test_no_durations(told: Usage) -> None:
    """Nothing is learned."""
    slots = Slots(2)
    assert [served(slots, told, told) for _ in range(5)] == [[None, None]] * 5
    assert slots.limits == {}


def test_a_load_is_no_waiting() -> None:
    """It has its own seconds."""
    slots = Slots(2)
    for number in range(5):
        served(slots, usage(4.0), usage(14.0, load=10.0), since=100.0 * number)
    assert slots.limits == {}


def test_whoever_gets_there_first() -> None:
    """Of those that are sent at once: the one that waited was not beside fewer than there were."""
    slots = Slots(3)
    for number in range(3):
        served(slots, usage(8.0), usage(4.0), usage(4.0), since=20.0 * number)
    assert slots.limits == {"a": 2}


def test_configured_anew() -> None:
    """What was found under another ceiling is forgotten, what was found under the same is not."""
    slots = Slots(4)
    too_many(slots)
    slots.configure(4)
    assert slots.limits == {"a": 1}
    slots.configure(8)
    assert (slots.count, slots.limits) == (8, {})
    slots.configure(0)
    assert (slots.count, slots.limits) == (1, {})


def test_bounded() -> None:
    """However many models there are."""
    slots = Slots(0)
    for number in range(MODELS_MOST + 10):
        served(slots, *[usage(4.0)] * 100, digest=f"m{number}")
    assert len(slots._ended) <= ENDED_MOST
    assert len(slots.limits) <= MODELS_MOST
    slots.remember({f"n{number}": 2 for number in range(20)})
    assert len(slots.limits) <= MODELS_MOST


def test_a_fleet_tells_and_remembers() -> None:
    """Views show it, and a new start knows it."""
    fleet = Fleet([host(slots=2)])
    fleet.observe("gpu1", observation(0.0, holds=(TEXT, OTHER)))
    for number in range(3):
        held = [fleet.lease("gpu1", TEXT, (), 10.0 * number, cold=False, seconds=4.0) for _ in range(2)]
        for one, total in zip(held, (4.0, 8.0), strict=True):
            fleet.ran(one, usage(total))
            fleet.release(one)
    first = fleet.lease("gpu1", TEXT, (), 50.0, cold=False, seconds=4.0)
    seen = fleet.view("gpu1", 50.0)
    assert (seen.slots, dict(seen.parallel), dict(seen.crowded)) == (2, {digest_of(TEXT): 1}, {first.digest: 54.0})
    assert (fleet.is_full("gpu1", TEXT), fleet.is_full("gpu1", OTHER)) == (True, False)
    rows = fleet.memory.new()
    assert [(row.digest, row.value) for row in rows if row.what is What.PARALLEL] == [(digest_of(TEXT), 1)]
    again = Fleet([host(slots=2)])
    again.recall(rows)
    assert dict(again.view("gpu1", 0.0).parallel) == {digest_of(TEXT): 1}


def test_what_is_remembered_counts_up_to_what_is_configured() -> None:
    """Slots of a host that is configured now are no more than that."""
    fleet = Fleet([Host("gpu1", "http://gpu1", 2)])
    state = Slots(2)
    state.remember({"a": 4, "b": 1})
    assert (state.limits, state.limit_of("a")) == ({"b": 1}, 2)
    assert fleet.view("gpu1", 0.0).slots == 2


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.01, 0.1, 0.24, 0.26]), st.integers(0, 30)), max_size=60)
)
def test_who_was_there_with_whom(moves: list[tuple[bool, float, int]]) -> None:
    """As counted the long way: how many were out when one came or a moment later, and whether another was, ever."""
    slots, now = Slots(100), 0.0
    out: dict[int, Lease] = {}
    beside: dict[int, int] = {}
    alone: dict[int, bool] = {}
    for number, (comes, pause, which) in enumerate(moves):
        now += pause
        if comes or not out:
            out[number] = lease(number, since=now)
            slots.take(out[number])
            alone[number] = len(out) == 1
            for one, held in out.items():
                alone[one] = alone[one] and len(out) == 1
                if now - held.since <= WAIT_SECONDS:
                    beside[one] = max(beside.get(one, 0), len(out))
        else:
            slots.give_back(out.pop(sorted(out)[which % len(out)]))
        there = slots._out.get("a", {})
        assert {one: (held.beside, held.alone) for one, held in there.items()} == {
            one: (beside[one], alone[one]) for one in out
        }
