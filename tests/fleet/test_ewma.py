"""Learned averages: the first sample is believed, later ones move the average by a bounded factor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.ewma import ALPHA, OUTLIER_FACTOR, Estimate, blend
from tests.profiles import PROPERTY

positive = st.floats(min_value=1e-6, max_value=1e9)


@pytest.mark.parametrize(
    ("old", "sample", "expected"),
    [
        pytest.param(None, 5.0, 5.0, id="the first is believed"),
        pytest.param(10.0, 10.0, 10.0, id="the same changes nothing"),
        pytest.param(10.0, 20.0, 13.0, id="a larger one counts a part"),
        pytest.param(10.0, 5.0, 8.5, id="a smaller one counts a part"),
        pytest.param(10.0, 1e6, 19.0, id="an outlier above is clamped"),
        pytest.param(10.0, 1e-6, 7.75, id="an outlier below is clamped"),
    ],
)
def test_blend(old: float | None, sample: float, expected: float) -> None:
    """One step of an average."""
    assert blend(old, sample) == pytest.approx(expected)


@given(old=positive, sample=positive)
@PROPERTY
def test_no_sample_moves_an_average_far(old: float, sample: float) -> None:
    """The new average lies between the old one and the sample, and within a fixed factor of the old one."""
    new = blend(old, sample)
    assert min(old, sample) * (1 - 1e-9) <= new <= max(old, sample) * (1 + 1e-9)
    assert old * (1 - ALPHA) <= new <= old * (1 + ALPHA * (OUTLIER_FACTOR - 1)) * (1 + 1e-9)


@given(start=positive, truth=positive)
@PROPERTY
def test_an_average_gets_there(start: float, truth: float) -> None:
    """However wrong it was, an average of equal samples comes to them."""
    value = start
    for _ in range(250):
        value = blend(value, truth)
    assert value == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param((None, None, None), Estimate(2.0, 100.0, None), id="nothing"),
        pytest.param((0.0, 0.0, 0.0), Estimate(2.0, 100.0, None), id="zeros are no samples"),
        pytest.param((2.0, None, 50.0), Estimate(2.0, 100.0, 50.0), id="some"),
        pytest.param((None, 200.0, None), Estimate(2.0, 130.0, None), id="one"),
    ],
)
def test_an_estimate_takes_what_is_given(
    samples: tuple[float | None, float | None, float | None], expected: Estimate
) -> None:
    """What a request did not show stays as it was, and the old value is not changed."""
    before = Estimate(2.0, 100.0, None)
    assert before.after(*samples) == expected
    assert before == Estimate(2.0, 100.0, None)
