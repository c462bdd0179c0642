"""How much something is asked for: a rate that fades. Frozen values, replaced by ``after``."""

from math import exp
from typing import Final

FADE_SECONDS: Final = 300.0  # what was asked so long ago counts about a third


class Demand:
    """Requests per second, as of ``at``."""

    __slots__ = ("at", "per_second")

    def __init__(self, per_second: float, at: float) -> None:
        self.per_second = per_second
        self.at = at

    def __repr__(self) -> str:
        return f"<Demand {self.per_second:.3f}/s at {self.at:.3f}>"

    def rate(self, now: float) -> float:
        """Requests per second as seen at ``now``."""
        return self.per_second * exp(-max(0.0, now - self.at) / FADE_SECONDS)

    def after(self, now: float) -> "Demand":
        """With one more request."""
        return Demand(self.rate(now) + 1.0 / FADE_SECONDS, now)


NO_DEMAND: Final = Demand(0.0, 0.0)
