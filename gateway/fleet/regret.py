"""What it would cost others if a model left a host's memory: seconds until it is loaded again × how likely anybody wants it there meanwhile.

Meanwhile is HORIZON_SECONDS: what is not wanted for so long Ollama unloads by itself. Other hosts that hold the model share the wish for it.
"""

from collections.abc import Mapping
from math import exp
from typing import Final

from gateway.fleet.demand import Demand
from gateway.fleet.ewma import Estimate
from gateway.fleet.host import LoadedModel, RunnerOptions

HORIZON_SECONDS: Final = 300.0
DEFAULT_LOAD_RATE: Final = 1e9  # bytes per second from disk
DEFAULT_LOAD_BASE_SECONDS: Final = 2.0  # runner start, before the first byte is read


def load_seconds(digest: str, size: int, estimates: Mapping[str, Estimate], load_rate: float | None) -> float | None:
    """A load from nothing: as it was measured there, or at the host's pace for other models (bytes per second); None: neither is known."""
    estimate = estimates.get(digest)
    if estimate is not None and estimate.load_seconds is not None:
        return estimate.load_seconds
    return size / load_rate if load_rate and size else None


def default_load_seconds(size: int) -> float:
    """Where nobody has measured anything. ``size`` in bytes."""
    return DEFAULT_LOAD_BASE_SECONDS + size / DEFAULT_LOAD_RATE


def regrets(
    loaded: Mapping[str, LoadedModel],
    runners: Mapping[str, RunnerOptions],
    estimates: Mapping[str, Estimate],
    load_rate: float | None,
    demand: Mapping[tuple[str, RunnerOptions], Demand],
    copies: Mapping[str, int],
    now: float,
) -> dict[str, float]:
    """Seconds by digest, for each model that is loaded there with the runner options it was last asked for."""
    found: dict[str, float] = {}
    for digest, model in loaded.items():
        wanted = demand.get((digest, runners.get(digest, ())))
        if wanted is None:
            found[digest] = 0.0
            continue
        seconds = load_seconds(digest, model.size, estimates, load_rate)
        if seconds is None:
            seconds = default_load_seconds(model.size)
        hosts = max(1, copies.get(digest, 1))
        found[digest] = seconds * (1.0 - exp(-wanted.rate(now) * HORIZON_SECONDS / hosts))
    return found
