"""Fair shares of those who wait."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.shares import FORGOTTEN, Shares
from tests.profiles import PROPERTY


def served(
    shares: Shares, sizes: dict[str, list[float]], rounds: int, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Whoever stands first is served, ``rounds`` times, each with requests of these seconds in turn; what each got."""
    got = dict.fromkeys(sizes, 0.0)
    for name in sizes:
        for _ in range(rounds + 1):
            shares.come(name)
    for _ in range(rounds):
        name = min(sizes, key=lambda one: (shares.stands(one), one))
        seconds = sizes[name][int(got[name]) % len(sizes[name])]
        shares.served(name, seconds, (weights or {}).get(name, 1.0))
        shares.left(name)
        got[name] += seconds
    return got


durations = st.lists(st.floats(0.1, 30.0), min_size=1, max_size=4)


@given(sizes=st.dictionaries(st.sampled_from("abcd"), durations, min_size=2, max_size=4), rounds=st.integers(1, 60))
@PROPERTY
def test_what_two_got_differs_by_one_request_of_each(sizes: dict[str, list[float]], rounds: int) -> None:
    """Whatever the sizes of their requests, while both wait."""
    got = served(Shares(), sizes, rounds)
    for one, mine in sizes.items():
        for other, theirs in sizes.items():
            assert abs(got[one] - got[other]) <= max(mine) + max(theirs) + 1e-6


@given(
    sizes=st.dictionaries(st.sampled_from("abcd"), durations, min_size=2, max_size=4),
    weights=st.fixed_dictionaries(dict.fromkeys("abcd", st.floats(0.01, 100.0))),
    rounds=st.integers(1, 60),
)
@PROPERTY
def test_weighted_too(sizes: dict[str, list[float]], weights: dict[str, float], rounds: int) -> None:
    """What each got, divided by its weight, differs by one request of each, divided likewise."""
    got = served(Shares(), sizes, rounds, weights)
    for one, mine in sizes.items():
        for other, theirs in sizes.items():
            bound = max(mine) / weights[one] + max(theirs) / weights[other]
            assert abs(got[one] / weights[one] - got[other] / weights[other]) <= bound * (1 + 1e-6)


def test_who_comes_late_is_next_and_owed_nothing() -> None:
    """Who was not there has no claim on the past."""
    shares = Shares()
    for _ in range(200):
        shares.come("early")
    for _ in range(100):
        shares.served("early", 10.0)
        shares.left("early")
    shares.come("late")
    assert shares.stands("late") <= shares.stands("early") <= shares.stands("late") + 10.0


def test_where_one_would_stand() -> None:
    """Whoever it is, it is where one stands who comes then."""
    shares = Shares()
    for name in ("a", "a", "b"):
        shares.come(name)
    shares.served("a", 3.0)
    shares.left("a")
    shares.served("b", 1.0)
    shares.left("b")
    for name in ("a", "b", "new"):
        would = shares.would_stand(name)
        shares.come(name)
        assert shares.stands(name) == would


def test_nothing_is_kept_when_nobody_waits() -> None:
    """And not much of those who went, while others do."""
    shares = Shares()
    shares.come("a")
    shares.served("a", 100.0)
    shares.left("a")
    shares.come("a")
    assert shares.stands("a") == 0.0
    for number in range(FORGOTTEN + 10):
        shares.come(str(number))
        shares.left(str(number))
    assert len(shares._stands) <= FORGOTTEN + 2
    assert shares.waiting("a") == len(shares) == 1
    with pytest.raises(KeyError):
        shares.stands("nobody")
