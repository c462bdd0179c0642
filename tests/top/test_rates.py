"""Figures over time, from looks."""

import pytest

from gateway.top.look import Look
from gateway.top.rates import APART_SECONDS, WINDOW_SECONDS, quantile, rates, remembered
from tests.top.builders import generation, look

INF = float("inf")


def test_one_look_tells_nothing() -> None:
    """Nor do two of the same moment."""
    assert rates(()).tokens_per_second is None
    assert rates((look(),)).tokens_per_second is None
    assert rates((look(), look())).requests == 0


def test_requests_and_failures() -> None:
    """Only those that ended in between; a client's own mistake and a cancellation are no failures."""
    before = look(outcomes={"ok": 10, "timeout": 1})
    after = look(at=10.0, outcomes={"ok": 15, "timeout": 1, "cancelled": 2, "client_error": 3, "upstream_error": 4})
    told = rates((before, after))
    assert (told.requests, told.seconds, dict(told.failures)) == (14, 10.0, {"upstream_error": 4})


def test_tokens_count_while_they_come() -> None:
    """Those in flight with what they have said, and nothing twice when they end."""
    begun = look(tokens={"gpu1": 100}, generations=(generation("a", tokens=10), generation("b", host=None, tokens=0)))
    later = look(at=2.0, tokens={"gpu1": 100}, generations=(generation("a", tokens=50),))
    ended = look(at=4.0, tokens={"gpu1": 190, "gpu2": 4})
    assert rates((begun, later)).by_host == {"gpu1": 20.0}
    assert rates((begun, later, ended)).tokens_per_second == (80 + 4) / 4
    assert rates((begun, later, ended)).by_host == {"gpu1": 20.0, "gpu2": 1.0}


def test_the_speed_of_one_generation() -> None:
    """Since it began to speak, not since it was sent."""
    looks = (
        look(generations=(generation("a"),)),
        look(at=30.0, generations=(generation("a", tokens=5),)),
        look(at=32.0, generations=(generation("a", tokens=105), generation("b", tokens=7))),
    )
    assert rates(looks).by_generation == {"a": 50.0}


def test_time_to_first_token() -> None:
    """Of the streams that began in between; series that are new count from nothing."""
    before = look(first_token={0.1: 100, 1.0: 100, INF: 100})
    after = look(at=5.0, first_token={0.1: 100, 1.0: 110, 2.0: 110, INF: 110})
    told = rates((before, after))
    assert told.ttft_p50 == pytest.approx(0.55)
    assert rates((after, after)).ttft_p50 is None
    assert rates((before, look(at=1.0, first_token=dict(before.scrape.first_token)))).ttft_p95 is None


@pytest.mark.parametrize(
    ("within", "share", "seconds"),
    [
        ({}, 0.5, None),
        ({1.0: 0, INF: 0}, 0.5, None),
        ({1.0: 10, INF: 10}, 0.5, 0.5),
        ({1.0: 0, 2.0: 4, INF: 4}, 1.0, 2.0),
        ({1.0: 5, INF: 10}, 0.95, 1.0),
    ],
)
def test_quantiles(within: dict[float, int], share: float, seconds: float | None) -> None:
    """Evenly inside a bucket; what lies beyond the last bound is told as that bound."""
    assert quantile(within, share) == seconds


def test_what_is_remembered() -> None:
    """A window's worth of looks, and none from before a restart."""
    first, second = look(outcomes={"ok": 5}), look(at=WINDOW_SECONDS, outcomes={"ok": 6})
    third = look(at=WINDOW_SECONDS + 1, outcomes={"ok": 7})
    assert remembered((), first) == (first,)
    assert remembered((first,), second) == (first, second)
    assert remembered((first, second), third) == (second, third)
    again = look(at=WINDOW_SECONDS + 2, outcomes={"ok": 9}, started=1.0)
    assert remembered((second, third), again) == (again,)
    fewer = look(at=WINDOW_SECONDS + 2, outcomes={"ok": 1})
    assert remembered((second, third), fewer) == (fewer,)


def test_looking_often() -> None:
    """Does not make it remember more than so many looks, and the last is always there."""
    looks: tuple[Look, ...] = ()
    for tenth in range(2000):
        looks = remembered(looks, look(at=tenth / 8))
        assert looks[-1].at == tenth / 8
        assert len(looks) <= WINDOW_SECONDS / APART_SECONDS + 2
    assert looks[-1].at - looks[0].at > WINDOW_SECONDS - 2
