"""The two objectives: the share of errors over several windows, and alerts where the budget for them burns.

It burns in two windows at once (the long one says that it matters, the short one that it goes on), and only where there were enough
requests: one failure among nine must wake nobody.
"""

from grafana.queries import AVAILABILITY_BUDGET, BAD, BURNS, COUNTED, IN_TIME, TTFT_BUDGET, ruled
from grafana.rules.rule import PAGE, TICKET, Alert, Recording, summed

TTFT = "corral_time_to_first_token_seconds"
ENOUGH = 20
"""Requests in a budget's long window; with no more than these nothing is said."""


def availability(window: str) -> Recording:
    """The share of requests that were failed. Nothing where there were none."""
    failed = summed("rate", "job", window, "corral_requests_total", BAD)
    counted = summed("rate", "job", window, "corral_requests_total", COUNTED)
    return Recording(f"corral:slo_availability_errors:ratio_rate{window}", f"{failed} / ({counted} > 0)")


def first_token(window: str) -> Recording:
    """The share of first tokens that came too late."""
    fast = summed("rate", "job", window, f"{TTFT}_bucket", IN_TIME)
    counted = summed("rate", "job", window, f"{TTFT}_count")
    return Recording(f"corral:slo_ttft_errors:ratio_rate{window}", f"1 - ({fast} / ({counted} > 0))")


OBJECTIVES = [make(window) for make in (availability, first_token) for window in BURNS]


def _burns(
    name: str, series: str, budget: float, volume: tuple[str, ...], what: str, *steps: tuple[str, str, float, str, str]
) -> list[Alert]:
    """Alerts for a budget: (long window, short window, how many times the budget, severity, for). ``volume``: what counts its requests."""
    return [
        Alert(
            name,
            severity,
            wait,
            f"({_errors(series, long)} > ({factor:g} * {budget:g}) and {_errors(series, short)} > ({factor:g} * {budget:g})) "
            f"and on (job) {summed('increase', 'job', long, *volume)} > {ENOUGH}",
            f"{what}: {factor:g} times the budget over {long}",
            f"{{{{ $value | humanizePercentage }}}} over {long}, where the objective allows {budget:.1%}; the last {short} were no better.",
            window=long,
        )
        for long, short, factor, severity, wait in steps
    ]


def _errors(series: str, window: str) -> str:
    return ruled(f"corral:slo_{series}_errors:ratio_rate{window}")


ALL, STREAMED = ("corral_requests_total", COUNTED), (f"{TTFT}_count",)
SLOW_BURNS = ("1d", "2h", 3.0, TICKET, "15m"), ("3d", "6h", 1.0, TICKET, "15m")
FAST_BURNS = ("1h", "5m", 14.4, PAGE, "2m"), ("6h", "30m", 6.0, PAGE, "2m")
BUDGETS = [
    *_burns(
        "CorralAvailabilityBudgetBurn",
        "availability",
        AVAILABILITY_BUDGET,
        ALL,
        "Requests fail",
        *FAST_BURNS,
        *SLOW_BURNS,
    ),
    # 14.4 times a budget of 5 % would be 72 % of all first tokens: the six hours' page is the first one
    *_burns(
        "CorralTtftBudgetBurn", "ttft", TTFT_BUDGET, STREAMED, "First tokens come late", *FAST_BURNS[1:], *SLOW_BURNS
    ),
]
