"""How it is with a key's limits, and how its callers are told: by the errors that refuse, and in headers."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from gateway.access.limits import Limit
from gateway.errors import OverBudget, RateLimited

Headers = tuple[tuple[str, str], ...]
AGAIN_SECONDS: Final = 1.0  # for who has too much under way: nobody knows when it ends
_WORDS: Mapping[Limit, str] = {
    "month": "has used up its {} tokens of this month",
    "day": "has used up its {} tokens of this day",
    "tpm": "may use {} tokens a minute",
    "rpm": "may send {} requests a minute",
    "concurrency": "may have {} requests under way at a time",
}

Standing = tuple[Limit, int, int, float]
"""How it is with one limit: how much there is, how much of it is used, and the seconds until all of it is there again if nothing comes; 0: it is, or nobody
knows when."""


def refusal(name: str, limit: Limit, quota: int, again_seconds: float, told: Headers) -> RateLimited:
    """What a caller is told whose key has nothing left of this."""
    kind = OverBudget if limit in ("month", "day") else RateLimited
    error = kind(f"the key {name!r} {_WORDS[limit].format(quota)}", retry_after=again_seconds)
    error.headers = told
    return error


def headers(policy: str, standings: Iterable[Standing], dialect: str, at: float) -> Headers:
    """How it is, in headers: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10), and those that OpenAI's and Anthropic's clients
    know. ``at``: Unix seconds."""
    states = []
    more: list[tuple[str, str]] = []
    for limit, quota, used, renews_seconds in standings:
        left = quota - used if used < quota else 0
        seconds = int(renews_seconds + 0.999)
        states.append(f'"{limit}";r={left};t={seconds}' if seconds else f'"{limit}";r={left}')
        if dialect == "openai" and limit in _OPENAI:
            names = _OPENAI[limit]
            more += (names[0], str(quota)), (names[1], str(left)), (names[2], f"{seconds}s")
        elif dialect == "anthropic" and limit in _ANTHROPIC:
            names = _ANTHROPIC[limit]
            then = datetime.fromtimestamp(int(at + 0.999) + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            more += (names[0], str(quota)), (names[1], str(left)), (names[2], then)
    if not states:
        return ()
    return (("RateLimit-Policy", policy), ("RateLimit", ", ".join(states)), *more)


def _names(pattern: str) -> Mapping[str, tuple[str, str, str]]:
    """The names of the three headers that clients know, for each limit that they know of."""
    units = {"tpm": "tokens", "rpm": "requests"}
    limit, left, reset = (pattern.replace("WHAT", what) for what in ("limit", "remaining", "reset"))
    return {
        name: (limit.replace("UNIT", unit), left.replace("UNIT", unit), reset.replace("UNIT", unit))
        for name, unit in units.items()
    }


_OPENAI: Final = _names("x-ratelimit-WHAT-UNIT")
_ANTHROPIC: Final = _names("anthropic-ratelimit-UNIT-WHAT")
