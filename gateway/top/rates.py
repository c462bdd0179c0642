"""Figures over time: what became of the counters between two looks. Pure.

They come from ``/metrics``, which every gateway has, and not from the database, which may be none, away, or shared with others.
Output tokens are counted there when a generation ends. A long one would show as nothing and then as a peak; so what those in flight
have said so far is added.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.top.look import Look

WINDOW_SECONDS = 60.0
APART_SECONDS = 1.0  # the looks that are remembered, however often one looks
_NO_FAILURE = ("ok", "cancelled", "client_error")


@dataclass(frozen=True, slots=True)
class Rates:
    """Over the last ``seconds``. Times in seconds; None: nothing to tell from."""

    seconds: float = 0.0
    requests: int = 0  # that ended
    failures: Counter[str] = field(default_factory=Counter)  # those for which a host or the gateway is to blame
    tokens_per_second: float | None = None
    by_host: Mapping[str, float] = field(default_factory=dict)  # tokens per second
    by_generation: Mapping[str, float] = field(default_factory=dict)  # idem, of those in flight
    ttft_p50: float | None = None
    ttft_p95: float | None = None


def remembered(looks: Sequence[Look], new: Look) -> tuple[Look, ...]:
    """The looks of the window with a new one; without those before a restart of the gateway."""
    if looks and (looks[-1].scrape.started != new.scrape.started or _fell(looks[-1], new)):
        return (new,)
    if len(looks) > 1 and looks[-1].at - looks[-2].at < APART_SECONDS:
        looks = looks[:-1]
    return (*(look for look in looks if new.at - look.at <= WINDOW_SECONDS), new)


def rates(looks: Sequence[Look]) -> Rates:
    """From the first look to the last."""
    if len(looks) < 2 or looks[-1].at <= looks[0].at:
        return Rates()
    first, last = looks[0], looks[-1]
    seconds = last.at - first.at
    ended = last.scrape.outcomes - first.scrape.outcomes
    streams = {bound: n - first.scrape.first_token[bound] for bound, n in last.scrape.first_token.items()}
    spoken = _said(last) - _said(first)
    return Rates(
        seconds=seconds,
        requests=ended.total(),
        failures=Counter({outcome: n for outcome, n in ended.items() if outcome not in _NO_FAILURE}),
        tokens_per_second=spoken.total() / seconds,
        by_host={host: tokens / seconds for host, tokens in spoken.items()},
        by_generation=_speeds(looks),
        ttft_p50=quantile(streams, 0.5),
        ttft_p95=quantile(streams, 0.95),
    )


def quantile(within: Mapping[float, int], share: float) -> float | None:
    """Of a cumulative histogram (bound → how many within it): evenly spread inside a bucket; beyond the last bound that bound."""
    bounds = sorted(within)
    if not bounds or within[bounds[-1]] <= 0:
        return None
    rank, low, below = share * within[bounds[-1]], 0.0, 0
    for bound in bounds:
        if within[bound] >= rank:
            if bound == float("inf"):
                break
            return low + (bound - low) * (rank - below) / max(within[bound] - below, 1)
        low, below = bound, within[bound]
    return low


def _fell(before: Look, now: Look) -> bool:
    return before.scrape.outcomes.total() > now.scrape.outcomes.total()


def _said(look: Look) -> Counter[str]:
    """Output tokens by host: of generations that ended, and so far of those that run."""
    said = Counter(look.scrape.output_tokens)
    for generation in look.generations:
        said[generation.host or ""] += generation.tokens
    return said


def _speeds(looks: Sequence[Look]) -> dict[str, float]:
    """Tokens per second of each generation in flight, since the first look in which it had said anything."""
    begun: dict[str, tuple[float, int]] = {}
    for look in looks:
        for generation in look.generations:
            if generation.tokens:
                begun.setdefault(generation.id, (look.at, generation.tokens))
    speeds = {}
    for generation in looks[-1].generations:
        at, tokens = begun.get(generation.id, (looks[-1].at, 0))
        if looks[-1].at > at:
            speeds[generation.id] = max(0, generation.tokens - tokens) / (looks[-1].at - at)
    return speeds
