"""What one run comes to."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from bench.routing.replay import Replayed


class Figures(NamedTuple):
    """Seconds to the first token; loads; output tokens per second until the last end; seconds of hosts that answered nobody; and the best
    served principal's share against the worst served one's (``fairness``, 1: alike)."""

    p50: float
    p95: float
    p99: float
    mean: float
    loads: int
    reloads: int
    tokens_per_second: float
    wasted_seconds: float
    fairness: float
    failed: int
    end: float
    error: float  # median of |predicted − actual| first token


def figures(run: Replayed) -> Figures:
    """Of one run."""
    firsts = sorted(answer.first for answer in run.answers if answer.first is not None)
    errors = sorted(abs(answer.first - answer.predicted) for answer in run.answers if answer.first is not None)
    tokens = sum(answer.ask.output_tokens for answer in run.answers if answer.last is not None)
    return Figures(
        quantile(firsts, 0.5),
        quantile(firsts, 0.95),
        quantile(firsts, 0.99),
        sum(firsts) / len(firsts),
        run.loads,
        run.reloads,
        tokens / run.end,
        run.loading_seconds + run.lost_seconds,
        fairness(run),
        sum(answer.last is None for answer in run.answers),
        run.end,
        quantile(errors, 0.5),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def fairness(run: Replayed) -> float:
    """The largest against the smallest normalised service among principals who asked for no more than an equal share of all there is.

    A request's normalised service is the time that its answer takes on an idle, warm host of the fastest kind, against the time that it took. Who
    asked for more than their share is owed the share only, and is left out.
    """
    cards = {place.card for place in run.scenario.places}
    slots = sum(place.slots for place in run.scenario.places)
    asked: dict[str, float] = defaultdict(float)
    served: dict[str, list[float]] = defaultdict(list)
    for answer in run.answers:
        ask = answer.ask
        least = min(
            (ask.prompt_tokens - ask.known_tokens) / card.prefill_rate(ask.model)
            + ask.output_tokens / card.decode_rate(ask.model)
            for card in cards
        )
        asked[ask.principal] += least
        if answer.last is not None:
            served[ask.principal].append(least / max(answer.last, least))
    asks = run.scenario.asks
    share = slots * (asks[-1].at - asks[0].at) / len(asked)
    means = [sum(values) / len(values) for name, values in served.items() if asked[name] <= share and len(values) >= 10]
    return max(means) / min(means) if means else 1.0
