"""How much something is asked for, and how that fades."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.demand import FADE_SECONDS, NO_DEMAND
from tests.profiles import PROPERTY


def test_a_steady_stream() -> None:
    """Of one request a second is seen as that, and fades once it ends."""
    demand = NO_DEMAND
    for second in range(2000):
        demand = demand.after(float(second))
    assert demand.rate(1999.0) == pytest.approx(1.0, rel=0.01)
    assert demand.rate(1999.0 + FADE_SECONDS) == pytest.approx(exp(-1.0), rel=0.01)


@given(st.lists(st.floats(0.0, 1e6), max_size=30).map(sorted), st.floats(0.0, 1e6))
@PROPERTY
def test_never_negative_nor_growing_by_itself(times: list[float], later: float) -> None:
    """Whenever requests come, and whatever the clock says then."""
    demand = NO_DEMAND
    for time in times:
        before = demand.rate(time)
        demand = demand.after(time)
        assert demand.rate(time) == pytest.approx(before + 1 / FADE_SECONDS)
    assert 0.0 <= demand.rate(demand.at + later) <= demand.rate(demand.at)
