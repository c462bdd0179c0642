"""The words that expressions are made of, shared by panels and rules.

A panel's selector names ``job`` and ``instance`` by the dashboard's variables, a rule's the job by its name. Rates span
``$__rate_interval``, which Grafana makes wide enough for the scrape interval, or a window that the panel's title names.
"""

JOB = "corral"
"""The scrape job, by which rules know Corral (docs/operations.md)."""

_OURS = f'job="{JOB}"'
_CHOSEN = 'job=~"$job"'
VARIABLES = f'{_CHOSEN},instance=~"$instance"'
FIRING = 'alertname=~"Corral.+",alertstate="firing"'
MODEL, HOST = 'model=~"$model"', 'host=~"$host"'
STEP = "$__rate_interval"

BAD = 'outcome=~"upstream_error|gateway_error|timeout|rejected|no_host"'
"""Outcomes that spend the budget."""
COUNTED = 'outcome!~"client_error|cancelled"'
"""Outcomes that the objective is about: what callers get wrong or give up says nothing of the fleet."""
FAULTY = 'outcome!~"ok|cancelled|http_4xx"'
"""Attempts that failed by the host's fault."""

AVAILABILITY, AVAILABILITY_BUDGET = "99.5 %", 0.005
TTFT_SHARE, TTFT_BUDGET, TTFT_SECONDS = "95 %", 0.05, 2.0
IN_TIME = f'le="{TTFT_SECONDS}"'
BURNS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""Windows over which budgets are watched."""


def of(metric: str, *matchers: str) -> str:
    """What a dashboard's variables select of a metric."""
    return f"{metric}{{{','.join((VARIABLES, *matchers))}}}"


def ruled(metric: str, *matchers: str) -> str:
    """What rules select of a metric."""
    return f"{metric}{{{','.join((_OURS, *matchers))}}}"


def recorded(name: str, *matchers: str) -> str:
    """What a dashboard's variables select of a series that rules make: of a job, whatever its instances."""
    return f"{name}{{{','.join((_CHOSEN, *matchers))}}}"


def over(selected: str, by: str = "", how: str = "sum") -> str:
    """An aggregate over all series, or by some labels."""
    return f"{how} by ({by}) ({selected})" if by else f"{how}({selected})"


def rate(metric: str, *matchers: str, by: str = "", window: str = STEP) -> str:
    """How much a counter grows each second."""
    return over(f"rate({of(metric, *matchers)}[{window}])", by)


def increase(metric: str, *matchers: str, by: str = "", window: str = STEP) -> str:
    """How much a counter grows over a window."""
    return over(f"increase({of(metric, *matchers)}[{window}])", by)


def quantile(q: float, histogram: str, *matchers: str, by: str = "", window: str = STEP) -> str:
    """A quantile over all series, or by some labels."""
    return f"histogram_quantile({q:g}, {rate(f'{histogram}_bucket', *matchers, by=_with_le(by), window=window)})"


def mean(histogram: str, *matchers: str, by: str = "") -> str:
    """Sum by count."""
    return f"{rate(f'{histogram}_sum', *matchers, by=by)} / {rate(f'{histogram}_count', *matchers, by=by)}"


def _with_le(by: str) -> str:
    return f"{by}, le" if by else "le"
