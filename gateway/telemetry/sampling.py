"""Which traces are kept: decided at a generation's end, when it is known what became of it. That costs the others next to nothing."""

from typing import Final

from gateway.config import TracingConfig
from gateway.record import GenerationRecord, Outcome

ERRORS: Final = frozenset(
    (Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT, Outcome.NO_HOST, Outcome.REJECTED, Outcome.GATEWAY_ERROR)
)
"""Outcomes that are the service's fault: what the caller did wrong, or did not want any more, is none of them."""


class Sampling:
    """The rules, and a bucket of ``per_second`` tokens, one for each trace. Monotonic seconds."""

    def __init__(self, config: TracingConfig, now: float) -> None:
        self._every = config.mode == "all"
        self._errors_only = config.mode == "errors"
        self._slow_first, self._slow = config.slow_first_byte_seconds, config.slow_seconds
        self._rate = config.per_second
        self._burst = max(1.0, self._rate)
        self._left, self._at = self._burst, now

    def why(self, record: GenerationRecord, now: float, *, sampled: bool) -> tuple[str, bool]:
        """Why a trace is kept: ``sampled``, ``error``, ``retried``, ``cold`` or ``slow``; empty: it is not, (…, True) only because of the limit."""
        return self._within(self._reason(record, sampled), now)

    def why_alone(self, now: float, *, error: bool, otherwise: str = "") -> tuple[str, bool]:
        """The same of what is no generation: ``error``, or ``otherwise``."""
        return self._within("error" if error else "" if self._errors_only else otherwise, now)

    def _within(self, why: str, now: float) -> tuple[str, bool]:
        if not why or self._every:
            return why, False
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return "", True
        self._left -= 1.0
        return why, False

    def _reason(self, record: GenerationRecord, sampled: bool) -> str:
        if record.outcome in ERRORS:
            return "error"
        if self._errors_only:
            return ""
        if sampled:
            return "sampled"
        if len(record.attempts) > 1:
            return "retried"
        if record.cold:
            return "cold"
        ttft = record.ttft_seconds
        return "slow" if record.duration_seconds > self._slow or (ttft is not None and ttft > self._slow_first) else ""
