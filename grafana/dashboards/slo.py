"""Service levels: what is left of two budgets, how fast they burn, and who burns them."""

from grafana import board as b
from grafana.board import Placed, Row
from grafana.panels import GREEN, ORANGE, RED, Json, Query, lines, split, stat, thresholds
from grafana.queries import (
    AVAILABILITY,
    AVAILABILITY_BUDGET,
    BAD,
    BURNS,
    COUNTED,
    IN_TIME,
    MODEL,
    TTFT_BUDGET,
    TTFT_SECONDS,
    TTFT_SHARE,
    increase,
    rate,
    recorded,
)

TTFT = "corral_time_to_first_token_seconds"
MONTH = "30d"


def board() -> Json:
    """The dashboard."""
    rows = [
        Row("Budgets", [Placed(panel, b.QUARTER, b.FLAT) for panel in _budgets()]),
        Row("How fast they burn", [Placed(panel, b.HALF) for panel in _burning()]),
        Row("Who burns them", [Placed(panel, b.HALF) for panel in _burners()]),
    ]
    about = f"{AVAILABILITY} of requests are not failed; {TTFT_SHARE} of first tokens come within {TTFT_SECONDS:g} s."
    return b.board("slo", "Service levels", about, rows, [b.models()])


def _budgets() -> list[Json]:
    failed = f"{increase('corral_requests_total', BAD, window=MONTH)} / {increase('corral_requests_total', COUNTED, window=MONTH)}"
    fast = f"{increase(f'{TTFT}_bucket', IN_TIME, window=MONTH)} / {increase(f'{TTFT}_count', window=MONTH)}"
    left = thresholds((0.0, ORANGE), (0.25, GREEN), base=RED)
    burn = thresholds((1, ORANGE), (6, RED))
    return [
        stat(
            "Availability budget left",
            f"Of the failures that {AVAILABILITY} over {MONTH} allows. Below zero the objective is missed: no risky changes until it recovers.",
            "percentunit",
            Query(f"1 - ({failed}) / {AVAILABILITY_BUDGET:g}"),
            limits=left,
        ),
        stat(
            "Availability, burning now",
            "Over an hour; 1 uses exactly the budget, 14.4 uses 2 % of the month in an hour and pages.",
            "short",
            Query(f"max({recorded('corral:slo_availability_errors:ratio_rate1h')}) / {AVAILABILITY_BUDGET:g}"),
            limits=burn,
        ),
        stat(
            "First token budget left",
            f"Of the slow first tokens that {TTFT_SHARE} within {TTFT_SECONDS:g} s over {MONTH} allows.",
            "percentunit",
            Query(f"1 - (1 - {fast}) / {TTFT_BUDGET:g}"),
            limits=left,
        ),
        stat(
            "First token, burning now",
            "Over an hour; 1 uses exactly the budget.",
            "short",
            Query(f"max({recorded('corral:slo_ttft_errors:ratio_rate1h')}) / {TTFT_BUDGET:g}"),
            limits=burn,
        ),
    ]


def _burning() -> list[Json]:
    limits = thresholds((1, "yellow"), (3, ORANGE), (6, RED))
    text = (
        "Each window's errors by the budget. Over 6 in six hours (and the last half hour) somebody is paged, over 3 in a day and over 1 in "
        "three days a ticket is made. Long windows high and short ones low: it is over."
    )
    return [
        lines(
            title,
            text,
            "short",
            *(
                Query(f"max({recorded(f'corral:slo_{name}_errors:ratio_rate{window}')}) / {budget:g}", window)
                for window in BURNS
            ),
            limits=limits,
            axis="budgets",
        )
        for title, name, budget in (
            ("Availability", "availability", AVAILABILITY_BUDGET),
            ("First token", "ttft", TTFT_BUDGET),
        )
    ]


def _burners() -> list[Json]:
    fast = rate(f"{TTFT}_bucket", MODEL, IN_TIME, by="model")
    return [
        lines(
            "Bad requests",
            "By model and outcome. One model: its hosts or its size. All: see the fleet's board.",
            "reqps",
            split(rate, "corral_requests_total", MODEL, BAD, by="model, outcome"),
            stacked=True,
        ),
        lines(
            "Slow first tokens",
            f"Requests each second whose first token took longer than {TTFT_SECONDS:g} s, by model. See its cold starts and the queue.",
            "reqps",
            Query(f"{rate(f'{TTFT}_count', MODEL, by='model')} - {fast}", "{{model}}"),
            stacked=True,
        ),
    ]
