"""What is learned of models over the whole fleet."""

import pytest

from gateway.fleet.learned import LENGTH_ALPHA, MODELS_LIMIT, Learned
from tests.fleet.builders import SIZE, digest_of, loaded


def test_how_long_answers_are() -> None:
    """The first is believed, later ones move it a little; one that is absurdly long moves it no more than a long one."""
    learned = Learned()
    learned.answered("a", 100)
    assert learned.lengths == {"a": 100.0}
    learned.answered("a", 200)
    assert learned.lengths["a"] == pytest.approx(100 + LENGTH_ALPHA * 100)
    one, other = Learned(), Learned()
    for which, last in ((one, 400), (other, 10**6)):
        which.answered("a", 100)
        which.answered("a", last)
    assert one.lengths == other.lengths


def test_what_is_asked_for() -> None:
    """A model with other runner options is another wish."""
    learned = Learned()
    for options in ((), (), (("num_ctx", 8192),)):
        learned.asked("a", options, 5.0)
    rates = [demand.rate(5.0) for demand in learned.demand.values()]
    assert rates == [pytest.approx(2 * rates[1]), rates[1]]


def test_how_large_models_are() -> None:
    """As a host says that holds them; who says nothing (no GPU) teaches nothing."""
    learned = Learned()
    learned.loaded((loaded("a"), loaded("b")))
    assert learned.sizes == {digest_of("a"): SIZE, digest_of("b"): SIZE}


def test_bounded() -> None:
    """The model that was asked for longest ago is forgotten."""
    learned = Learned()
    for number in range(MODELS_LIMIT):
        learned.asked(str(number), (), 0.0)
        learned.answered(str(number), 1)
    learned.asked("0", (), 1.0)
    learned.asked("new", (), 1.0)
    learned.answered("0", 1)
    learned.answered("new", 1)
    learned.loaded(tuple(loaded(f"m{number}") for number in range(MODELS_LIMIT + 5)))
    assert len(learned.demand) == len(learned.lengths) == len(learned.sizes) == MODELS_LIMIT
    assert ("0", ()) in learned.demand
    assert ("1", ()) not in learned.demand
    assert "0" in learned.lengths
    assert "1" not in learned.lengths


def test_who_holds_what() -> None:
    """Counted as it comes and goes."""
    learned = Learned()
    learned.moved((), ("a", "b"))
    learned.moved((), ("a",))
    assert learned.copies == {"a": 2, "b": 1}
    learned.moved(("a", "b"), ("a",))
    assert learned.copies == {"a": 2}
