"""Learned averages: frozen values, replaced by ``after``. An outlier moves an average by a bounded factor only."""

import msgspec

ALPHA = 0.3
OUTLIER_FACTOR = 4.0


def blend(old: float | None, sample: float) -> float:
    """The next average. The first sample is believed; later ones count ALPHA, clamped to OUTLIER_FACTOR around the average."""
    if old is None:
        return sample
    clamped = min(max(sample, old / OUTLIER_FACTOR), old * OUTLIER_FACTOR)
    return old + ALPHA * (clamped - old)


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """What is learned of one model on one host (or in the fleet): seconds, and tokens per second. None: not measured yet."""

    load_seconds: float | None = None
    prefill_rate: float | None = None
    decode_rate: float | None = None

    def after(self, load_seconds: float | None, prefill_rate: float | None, decode_rate: float | None) -> "Estimate":
        """This estimate with the samples that are given blended in."""
        return Estimate(
            blend(self.load_seconds, load_seconds) if load_seconds else self.load_seconds,
            blend(self.prefill_rate, prefill_rate) if prefill_rate else self.prefill_rate,
            blend(self.decode_rate, decode_rate) if decode_rate else self.decode_rate,
        )
