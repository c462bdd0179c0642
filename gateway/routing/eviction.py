"""What loading a model costs everybody else: the models that must leave for it will be wanted again, and loaded again.

| what loading does there                        | who pays                                                        |
|------------------------------------------------|-----------------------------------------------------------------|
| there is room beside what is loaded            | nobody                                                          |
| the model is there with other runner options   | who uses it so, if anybody does                                 |
| others must leave                              | who uses them: of each its reload × how likely somebody wants it |

No API tells how much memory a host has: it is what is configured, or else the most that was ever seen in use there.
"""

from collections.abc import Mapping
from math import exp

from gateway.fleet.demand import Demand
from gateway.fleet.host import FleetSnapshot, HostView, RunnerOptions
from gateway.routing.averages import UNMEASURED, Averages

HORIZON_SECONDS = 300.0  # what is not wanted for so long Ollama unloads by itself
MODELS_LOADED = 3  # Ollama's own limit for each GPU, unless more were seen at once
DEFAULT_LOAD_RATE = 1e9  # bytes per second from disk
DEFAULT_LOAD_BASE_SECONDS = 2.0  # runner start, before the first byte is read


def load_seconds(view: HostView, digest: str, size: int, averages: Averages) -> float:
    """A load from nothing: as measured there, or at the host's pace for other models, or as it took elsewhere, or the default."""
    seconds = view.estimates.get(digest, UNMEASURED).load_seconds
    if seconds is None and view.load_rate and size:
        seconds = size / view.load_rate
    if seconds is None:
        seconds = averages.load_seconds(digest)
    return DEFAULT_LOAD_BASE_SECONDS + size / DEFAULT_LOAD_RATE if seconds is None else seconds


def harm(view: HostView, digest: str, size: int, snapshot: FleetSnapshot, averages: Averages) -> float:
    """Seconds that others will wait because ``digest`` (``size`` bytes on disk) is loaded on this host now."""
    seconds = 0.0
    taken = 0
    others = 0
    now = snapshot.taken_at
    for held, model in view.loaded.items():
        taken += model.vram
        if held != digest:
            others += 1
        elif digest not in view.loading:  # it is there, with other options
            seconds += _regret(view, held, model.size, snapshot.demand, averages, now)
            taken -= model.vram
    if not others:
        return seconds
    room = max(view.host.vram_bytes, view.vram_seen)
    short = snapshot.sizes.get(digest, size) + taken - room
    crowded = others >= max(MODELS_LOADED, view.models_seen)
    if short <= 0 and not crowded:
        return seconds
    share = min(1.0, max(short / taken if taken else 1.0, 1.0 / others))
    for held, model in view.loaded.items():
        if held != digest:
            seconds += share * _regret(view, held, model.size, snapshot.demand, averages, now)
    return seconds


def _regret(
    view: HostView,
    digest: str,
    size: int,
    demand: Mapping[tuple[str, RunnerOptions], Demand],
    averages: Averages,
    now: float,
) -> float:
    """A model's load × how likely it is wanted here before it would have left by itself; other hosts that hold it share the wish."""
    wanted = demand.get((digest, view.runners.get(digest, ())))
    if wanted is None:
        return 0.0
    copies = max(1, averages.copies(digest))
    likely = 1.0 - exp(-wanted.rate(now) * HORIZON_SECONDS / copies)
    return likely * load_seconds(view, digest, size, averages)
