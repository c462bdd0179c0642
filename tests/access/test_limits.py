"""Limits as they are written, and as callers are told of them."""

import pytest

from gateway.access.limits import NO_LIMITS, Limit, Limits, Standing, headers, limits_of, refusal
from gateway.dialects.request import Priority
from gateway.errors import OverBudget, RateLimited


def test_what_is_not_given_stays() -> None:
    """Zero takes a limit away; budgets that are given stand in place of all that there were."""
    one = limits_of(rpm=5, budgets=["100/day", "2000/month"], priority="background", share=2)
    assert one == Limits(5, 0, 0, 100, 2000, Priority.BACKGROUND, 2.0)
    assert one.budgets == ("100/day", "2000/month")
    assert limits_of(one, tpm=7) == Limits(5, 7, 0, 100, 2000, Priority.BACKGROUND, 2.0)
    assert limits_of(one, rpm=0, budgets=["3000/month"]) == Limits(0, 0, 0, 0, 3000, Priority.BACKGROUND, 2.0)
    assert limits_of(one, budgets=["0/day"]).budgets == ()
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


STANDINGS = (
    Standing(Limit.DAY, 1000, 1000, 3600.2),
    Standing(Limit.TPM, 500, 100, 30.0),
    Standing(Limit.RPM, 10, 12, 12.5),
    Standing(Limit.CONCURRENCY, 4, 1, 0.0),
)
POLICY = '"day";q=1000;qu="tokens";w=86400, "tpm";q=500;qu="tokens";w=60, "rpm";q=10;w=60, "concurrency";q=4;qu="concurrent-requests"'
STATE = '"day";r=0;t=3601, "tpm";r=400;t=30, "rpm";r=0;t=13, "concurrency";r=3'


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        ("ollama", {}),
        (
            "openai",
            {
                "x-ratelimit-limit-tokens": "500",
                "x-ratelimit-remaining-tokens": "400",
                "x-ratelimit-reset-tokens": "30s",
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "13s",
            },
        ),
        (
            "anthropic",
            {
                "anthropic-ratelimit-tokens-limit": "500",
                "anthropic-ratelimit-tokens-remaining": "400",
                "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:31Z",
                "anthropic-ratelimit-requests-limit": "10",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:14Z",
            },
        ),
    ],
)
def test_headers(dialect: str, more: dict[str, str]) -> None:
    """The draft's two for everybody, and those that a dialect's clients know."""
    told = headers(STANDINGS, dialect, 1_800_000_000.5)
    assert dict(told) == {"RateLimit-Policy": POLICY, "RateLimit": STATE} | more
    assert headers((), dialect, 0.0) == ()


@pytest.mark.parametrize(
    ("limit", "kind", "again", "words"),
    [
        (Limit.RPM, RateLimited, True, "the key 'ann' may send 7 requests a minute"),
        (Limit.CONCURRENCY, RateLimited, True, "may have 7 requests under way at a time"),
        (Limit.MONTH, OverBudget, False, "has used up its 7 tokens of this month"),
    ],
)
def test_refusals(limit: Limit, kind: type[RateLimited], again: bool, words: str) -> None:
    """A budget is not worth trying again for."""
    error = refusal("ann", limit, 7, 2.5, (("RateLimit", "x"),))
    assert type(error) is kind
    assert (error.status, error.again, error.retry_after, error.headers) == (429, again, 2.5, (("RateLimit", "x"),))
    assert words in error.message
