"""What is learned of models over the whole fleet: how much each is asked for, how long its answers are, how much memory it takes.

Bounded: what was asked for longest ago is forgotten.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.fleet.demand import NO_DEMAND, Demand
from gateway.fleet.ewma import OUTLIER_FACTOR
from gateway.fleet.host import LoadedModel, RunnerOptions

MODELS_LIMIT: Final = 4096
LENGTH_ALPHA: Final = 0.05  # lengths differ from answer to answer far more than from day to day


class Learned:
    """One fleet's. The mappings are read by every decision."""

    def __init__(self) -> None:
        self.demand: dict[tuple[str, RunnerOptions], Demand] = {}
        self.lengths: dict[str, float] = {}
        self.sizes: dict[str, int] = {}
        self.copies: dict[str, int] = {}  # hosts that hold a model in memory

    def asked(self, digest: str, options: RunnerOptions, now: float) -> None:
        """A request for this model, with these runner options."""
        key = (digest, options)
        self.demand[key] = self.demand.pop(key, NO_DEMAND).after(now)
        if len(self.demand) > MODELS_LIMIT:
            del self.demand[next(iter(self.demand))]

    def answered(self, digest: str, output_tokens: int) -> None:
        """An answer that came whole."""
        old = self.lengths.pop(digest, None)
        length = float(output_tokens)
        if old is not None:
            length = old + LENGTH_ALPHA * (min(length, old * OUTLIER_FACTOR) - old)
        self.lengths[digest] = length
        if len(self.lengths) > MODELS_LIMIT:
            del self.lengths[next(iter(self.lengths))]

    def loaded(self, models: tuple[LoadedModel, ...]) -> None:
        """What a poll saw in memory."""
        for model in models:
            if model.vram:
                self.sizes[model.digest] = model.vram
        while len(self.sizes) > MODELS_LIMIT:
            del self.sizes[next(iter(self.sizes))]

    def moved(self, before: Iterable[str], after: Iterable[str]) -> None:
        """A host held these, by digest, and now holds those."""
        for digest in before:
            self.copies[digest] -= 1
            if not self.copies[digest]:
                del self.copies[digest]
        for digest in after:
            self.copies[digest] = self.copies.get(digest, 0) + 1

    def recall(self, lengths: Mapping[str, float], sizes: Mapping[str, float]) -> None:
        """What was measured before, by digest, where nothing has been measured since."""
        self.lengths = {**lengths, **self.lengths}
        self.sizes = {**{digest: int(size) for digest, size in sizes.items()}, **self.sizes}
