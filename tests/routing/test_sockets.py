"""The replay over real sockets does what virtual time says, on a trace of a moment."""

import random

import pytest

from bench.routing.sockets import compared
from bench.routing.trace import Ask, Scenario, Talk, numbered, talks
from bench.routing.world import CATALOGUE, LARGE, MEDIUM, Place


def test_a_moment() -> None:
    """Two hosts, a few answers: the first tokens come when they should, but for the time that sockets and a busy machine take."""
    rng = random.Random(3)
    models = CATALOGUE[4:5]
    talk = Talk(every=0.2, turns=1.0, question=300.0, answer=40.0, document=0.0, wide=0.0)
    asks: tuple[Ask, ...] = numbered(talks(rng, talk, 1.5, models, [1.0], 3))
    places = (Place("one", LARGE, 1), Place("two", MEDIUM, 1))
    said, seen = compared(Scenario("moment", "a test", places, asks, warm=True), 1)
    assert len(asks) > 4
    assert said.p50 <= seen.p50 <= said.p50 + 0.5
    assert seen.makespan == pytest.approx(said.makespan, abs=1.0)
    assert seen.tokens_per_second > 0
