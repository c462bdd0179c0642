"""How it is with limits, as callers are told."""

import pytest

from gateway.access.limits import Limit, Limits
from gateway.access.standings import Standing, headers, refusal
from gateway.errors import OverBudget, RateLimited

STANDINGS: tuple[Standing, ...] = (
    ("day", 1000, 1000, 3600.2),
    ("tpm", 500, 100, 30.0),
    ("rpm", 10, 12, 12.5),
    ("concurrency", 4, 1, 0.0),
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
    limits = Limits(10, 500, 4, 1000)
    told = headers(limits.policy, STANDINGS, dialect, 1_800_000_000.5)
    assert dict(told) == {"RateLimit-Policy": POLICY, "RateLimit": STATE} | more
    assert headers("", (), dialect, 0.0) == ()


@pytest.mark.parametrize(
    ("limit", "kind", "again", "words"),
    [
        ("rpm", RateLimited, True, "the key 'ann' may send 7 requests a minute"),
        ("concurrency", RateLimited, True, "may have 7 requests under way at a time"),
        ("month", OverBudget, False, "has used up its 7 tokens of this month"),
    ],
)
def test_refusals(limit: Limit, kind: type[RateLimited], again: bool, words: str) -> None:
    """A budget is not worth trying again for."""
    error = refusal("ann", limit, 7, 2.5, (("RateLimit", "x"),))
    assert type(error) is kind
    assert (error.status, error.again, error.retry_after, error.headers) == (429, again, 2.5, (("RateLimit", "x"),))
    assert words in error.message
