"""Sliding minutes and calendars."""

import calendar as days
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.windows import DAY_SECONDS, Minute, calendar
from tests.profiles import PROPERTY

moves = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(0, 50)), max_size=60)


@given(moves=moves, most=st.integers(0, 60))
@PROPERTY
def test_no_sixty_seconds_have_more_than_was_ever_counted(moves: list[tuple[float, int]], most: int) -> None:
    """Everything of the last 60 seconds is counted, nothing that is older than 61; and it says when there is room again."""
    minute, log, now = Minute(), deque[tuple[float, int]](), 1000.0
    for step, number in moves:
        now += step
        minute.add(number, now)
        log.append((now, number))
        used = minute.used(now)
        assert sum(count for at, count in log if at > now - 60) <= used
        assert used <= sum(count for at, count in log if at > now - 61)
        then = now + minute.seconds_until(most, now)
        if used > most:
            assert sum(count for at, count in log if at > then - 60) <= most
    assert minute.used(now + minute.over_seconds(now)) == 0


def test_what_is_elsewhere_counts() -> None:
    """As much as was told, and it is taken to go evenly."""
    minute = Minute()
    minute.add(1, 5.5)
    minute.elsewhere = 60
    assert minute.used(5.9) == 61
    assert minute.seconds_until(60, 5.5) == pytest.approx(1.5)
    assert 30 <= minute.seconds_until(30, 5.5) <= 32
    assert minute.over_seconds(5.5) == pytest.approx(60.5)


def test_a_correction_does_not_go_below_nothing() -> None:
    """The host may tell less than was counted, a minute later."""
    minute = Minute()
    minute.add(-5, 0.0)
    assert minute.used(1.0) == 0


@pytest.mark.parametrize(
    ("day", "first", "after"),
    [
        ((2027, 1, 31), (2027, 1, 1), (2027, 2, 1)),
        ((2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
        ((2027, 12, 1), (2027, 12, 1), (2028, 1, 1)),
    ],
)
def test_days_and_months(day: tuple[int, int, int], first: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    """Of UTC."""
    for hour, minute in ((0, 0), (23, 59)):
        told = calendar(days.timegm((*day, hour, minute, 0)))
        wanted = [days.timegm((*one, 0, 0, 0)) // DAY_SECONDS for one in (day, first, after)]
        assert list(told) == wanted
