"""Learned averages: frozen values, replaced by ``after``. An outlier moves an average by a bounded factor only."""

from dataclasses import dataclass

ALPHA = 0.3
OUTLIER_FACTOR = 4.0


def blend(old: float | None, sample: float) -> float:
    """The next average. The first sample is believed; later ones count ALPHA, clamped to OUTLIER_FACTOR around the average."""
    if old is None:
        return sample
    clamped = min(max(sample, old / OUTLIER_FACTOR), old * OUTLIER_FACTOR)
    return old + ALPHA * (clamped - old)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is learned of one model on one host (or in the fleet): seconds, and tokens per second. None: not measured yet."""

    load_seconds: float | None = None
    prefill_rate: float | None = None
    decode_rate: float | None = None

    def after(
        self, *, load_seconds: float | None = None, prefill_rate: float | None = None, decode_rate: float | None = None
    ) -> "Estimate":
        """This estimate with the samples that are given blended in."""
        return Estimate(
            self.load_seconds if load_seconds is None else blend(self.load_seconds, load_seconds),
            self.prefill_rate if prefill_rate is None else blend(self.prefill_rate, prefill_rate),
            self.decode_rate if decode_rate is None else blend(self.decode_rate, decode_rate),
        )
