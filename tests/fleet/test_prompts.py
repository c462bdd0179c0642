"""Which prompts the slots of a loaded model know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.prompts import CONTINUES, PAUSE_SECONDS, SLOTS_MOST, Chain, Known, after, best, missed, shared
from tests.profiles import PROPERTY

AFTER: dict[str, tuple[tuple[Chain, ...], Chain, int, tuple[Chain, ...]]] = {
    "the first": ((), (1, 2), 1, ((1, 2),)),
    "another where there is room": (((1, 2),), (3,), 2, ((1, 2), (3,))),
    "another where there is none": (((1, 2),), (3,), 1, ((3,),)),
    "the one unused for longest goes": (((1,), (2,)), (3,), 2, ((2,), (3,))),
    "the next turn takes its own slot": (((1, 2), (3,)), (1, 2, 4), 2, ((3,), (1, 2, 4))),
    "of two that know some, the one that knows more": (((1,), (1, 2)), (1, 2, 3), 3, ((1,), (1, 2, 3))),
    "too short for a chain": (((1, 2),), (), 1, ((),)),
    "little in common is nothing": (((1,),), (1, *range(20, 40)), 2, ((1,), (1, *range(20, 40)))),
}


def knowing(*chains: Chain, at: float = 0.0) -> tuple[Known, ...]:
    """Slots that know these."""
    return tuple(Known(chain, at) for chain in chains)


@pytest.mark.parametrize(("held", "chain", "slots", "expected"), AFTER.values(), ids=AFTER)
def test_after(held: tuple[Chain, ...], chain: Chain, slots: int, expected: tuple[Chain, ...]) -> None:
    """A prompt takes the slot that knows most of it, else a free one, else the one unused for longest."""
    then = after(knowing(*held), chain, slots, 5.0)
    assert tuple(known.chain for known in then) == expected
    assert then[-1].at == 5.0


def test_missed() -> None:
    """Who takes the last slot takes somebody's prompt, who may well come back, the less the longer they have been silent."""
    full = knowing((1, 2), (3,), at=10.0)
    assert missed(full, 3, 10.0) == 0.0
    assert missed(full, 2, 10.0) == pytest.approx(2 * CONTINUES)
    assert missed(full, 2, 10.0 + PAUSE_SECONDS) == pytest.approx(2 * CONTINUES / 2.718281828)
    assert missed(knowing((), (3,)), 2, 0.0) == 0.0


chains = st.lists(st.integers(0, 3), max_size=6).map(tuple)


@given(st.lists(chains.filter(bool), min_size=1, max_size=20), st.integers(1, 4))
@PROPERTY
def test_the_last_prompt_is_known_whole(prompts: list[Chain], slots: int) -> None:
    """And never more prompts than there are slots; what two share is the same both ways."""
    held: tuple[Known, ...] = ()
    for chain in prompts:
        held = after(held, chain, slots, 0.0)
        assert len(held) <= slots
        assert best(held, chain) == len(chain)
        for other in held:
            assert shared(chain, other.chain) == shared(other.chain, chain) <= best(held, chain)


def test_so_many_are_remembered_at_most() -> None:
    """A host that is said to have thousands of slots costs no more to choose."""
    slots: tuple[Known, ...] = ()
    for number in range(10 * SLOTS_MOST):
        slots = after(slots, (number, number), 10_000, float(number))
    assert [known.chain[0] for known in slots] == list(range(9 * SLOTS_MOST, 10 * SLOTS_MOST))
