"""What a key may use."""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from gateway.access.windows import DAY_SECONDS, MINUTE_SECONDS
from gateway.dialects.request import Priority
from gateway.keyconfig import budgets_of, check_limits

Limit = Literal["month", "day", "tpm", "rpm", "concurrency"]
"""What is limited, the widest first."""

_UNITS: Mapping[Limit, str] = {
    "month": "tokens",
    "day": "tokens",
    "tpm": "tokens",
    "rpm": "requests",
    "concurrency": "concurrent-requests",
}
_WINDOWS: Mapping[Limit, int] = {"day": DAY_SECONDS, "tpm": MINUTE_SECONDS, "rpm": MINUTE_SECONDS}


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
    def policy(self) -> str:
        """All limits as RateLimit-Policy has them."""
        told = []
        for limit, unit in _UNITS.items():
            if quota := self.quota(limit):
                units = "" if unit == "requests" else f';qu="{unit}"'
                window = f";w={_WINDOWS[limit]}" if limit in _WINDOWS else ""
                told.append(f'"{limit}";q={quota}{units}{window}')
        return ", ".join(told)

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
    given: Limits | None = None,
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    budgets: Iterable[str] | None = None,
    priority: str | None = None,
    share: float | None = None,
) -> Limits:
    """As they were ``given`` before, with these in place of them; 0: no such limit. Raises ValueError, in words."""
    before = given or NO_LIMITS
    periods = (
        {"day": before.day, "month": before.month} if budgets is None else budgets_of(budgets, zero=given is not None)
    )
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
