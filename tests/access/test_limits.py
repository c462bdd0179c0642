"""Limits as they are written."""

import pytest

from gateway.access.limits import NO_LIMITS, Limits, limits_of
from gateway.dialects.request import Priority


def test_what_is_not_given_stays() -> None:
    """Zero takes a limit away; budgets that are given stand in place of all that there were."""
    one = limits_of(rpm=5, budgets=["100/day", "2000/month"], priority="background", share=2)
    assert one == Limits(5, 0, 0, 100, 2000, Priority.BACKGROUND, 2.0)
    assert one.budgets == ("100/day", "2000/month")
    assert limits_of(one, tpm=7) == Limits(5, 7, 0, 100, 2000, Priority.BACKGROUND, 2.0)
    assert limits_of(one, rpm=0, budgets=["3000/month"]) == Limits(0, 0, 0, 0, 3000, Priority.BACKGROUND, 2.0)
    assert limits_of(one, budgets=["0/day"]).budgets == ()
    with pytest.raises(ValueError, match="budget '0/day' would be none"):
        limits_of(budgets=["0/day"])
    assert limits_of() == NO_LIMITS
    assert not limits_of(share=2, priority="normal").limited


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rpm": -1}, "rpm = -1: at least 1"),
        ({"tpm": 10**16}, "tpm = "),
        ({"share": 0.0}, "share = 0: at least 0.01 and at most 100"),
        ({"budgets": ["10/week"]}, "write tokens like 1000000/day"),
        ({"budgets": ["10/day", "20/day"]}, "there is another one of a day"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, object], said: str) -> None:
    """In words."""
    with pytest.raises(ValueError, match=said):
        limits_of(**given)  # type: ignore[arg-type]
