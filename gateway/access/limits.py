"""What a key may use, and how its callers are told: by the errors that refuse, and in headers."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil
from typing import NamedTuple

import msgspec

from gateway.access.windows import DAY_SECONDS, MINUTE_SECONDS
from gateway.dialects.request import Priority
from gateway.errors import OverBudget, RateLimited
from gateway.keyconfig import budgets_of, check_limits

Headers = tuple[tuple[str, str], ...]
AGAIN_SECONDS = 1.0  # for who has too much under way: nobody knows when it ends


class Limit(StrEnum):
    """What is limited."""

    MONTH = "month"
    DAY = "day"
    TPM = "tpm"
    RPM = "rpm"
    CONCURRENCY = "concurrency"


BUDGETS = (Limit.MONTH, Limit.DAY)
_UNITS = {Limit.RPM: "requests", Limit.CONCURRENCY: "concurrent-requests"}
_WORDS = {
    Limit.MONTH: "has used up its {} tokens of this month",
    Limit.DAY: "has used up its {} tokens of this day",
    Limit.TPM: "may use {} tokens a minute",
    Limit.RPM: "may send {} requests a minute",
    Limit.CONCURRENCY: "may have {} requests under way at a time",
}


class Limits(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of one key; 0: none. ``rpm``, ``tpm``: requests and tokens a minute; ``concurrency``: generations that wait or run; ``day``, ``month``: tokens of
    a day and a month (UTC). ``priority``: the most urgent that a request of it can be; ``share``: its weight in the waiting room."""

    rpm: int = 0
    tpm: int = 0
    concurrency: int = 0
    day: int = 0
    month: int = 0
    priority: Priority = Priority.INTERACTIVE
    share: float = 1.0

    def quota(self, limit: Limit) -> int:
        """How much of it; 0: no end."""
        quota: int = getattr(self, limit)
        return quota

    @property
    def limited(self) -> bool:
        """Whether anything is limited at all."""
        return bool(self.rpm or self.tpm or self.concurrency or self.day or self.month)

    @property
    def budgets(self) -> tuple[str, ...]:
        """As they are written: ``1000000/day``."""
        told = ((self.day, "day"), (self.month, "month"))
        return tuple(f"{tokens}/{period}" for tokens, period in told if tokens)


NO_LIMITS = Limits()


def limits_of(
    before: Limits = NO_LIMITS,
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    budgets: Iterable[str] | None = None,
    priority: str | None = None,
    share: float | None = None,
) -> Limits:
    """As they were ``before``, with what is given in place of it; 0: no such limit. Raises ValueError, in words."""
    periods = {"day": before.day, "month": before.month} if budgets is None else budgets_of(budgets)
    limits = Limits(
        before.rpm if rpm is None else rpm,
        before.tpm if tpm is None else tpm,
        before.concurrency if concurrency is None else concurrency,
        **periods,
        priority=before.priority if priority is None else Priority[priority.upper()],
        share=before.share if share is None else share,
    )
    check_limits(limits.rpm, limits.tpm, limits.concurrency, limits.share)
    return limits


class Standing(NamedTuple):
    """How it is with one limit. ``renews_seconds``: until all of it is there again, if nothing comes; 0: it is, or nobody knows when."""

    limit: Limit
    quota: int
    used: int
    renews_seconds: float

    @property
    def left(self) -> int:
        """What may still be used."""
        return max(0, self.quota - self.used)


def refusal(name: str, limit: Limit, quota: int, again_seconds: float, told: Headers) -> RateLimited:
    """What a caller is told whose key has nothing left of this."""
    kind = OverBudget if limit in BUDGETS else RateLimited
    error = kind(f"the key {name!r} {_WORDS[limit].format(quota)}", retry_after=again_seconds)
    error.headers = told
    return error


def headers(standings: Iterable[Standing], dialect: str, now: float) -> Headers:
    """How it is, in headers: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10), and those that OpenAI's and Anthropic's
    clients know. ``now``: Unix seconds."""
    policies, states = [], []
    more: list[tuple[str, str]] = []
    for each in standings:
        limit, seconds = each.limit, ceil(each.renews_seconds)
        unit = _UNITS.get(limit, "tokens")
        window = {Limit.DAY: DAY_SECONDS}.get(limit, MINUTE_SECONDS if limit in (Limit.RPM, Limit.TPM) else 0)
        policies.append(
            f'"{limit}";q={each.quota}'
            + (f';qu="{unit}"' if unit != "requests" else "")
            + (f";w={window}" if window else "")
        )
        states.append(f'"{limit}";r={each.left}' + (f";t={seconds}" if seconds else ""))
        if limit in (Limit.RPM, Limit.TPM):
            more += _of_clients(dialect, unit, each, now)
    if not policies:
        return ()
    return (("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(states)), *more)


def _of_clients(dialect: str, unit: str, standing: Standing, now: float) -> Iterable[tuple[str, str]]:
    quota, left, seconds = str(standing.quota), str(standing.left), ceil(standing.renews_seconds)
    if dialect == "openai":
        return (
            (f"x-ratelimit-limit-{unit}", quota),
            (f"x-ratelimit-remaining-{unit}", left),
            (f"x-ratelimit-reset-{unit}", f"{seconds}s"),
        )
    if dialect == "anthropic":
        at = datetime.fromtimestamp(ceil(now) + seconds, UTC).isoformat().replace("+00:00", "Z")
        begin = f"anthropic-ratelimit-{unit}"
        return (f"{begin}-limit", quota), (f"{begin}-remaining", left), (f"{begin}-reset", at)
    return ()
