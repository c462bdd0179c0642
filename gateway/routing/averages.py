"""What the hosts of one snapshot know together: the guess for a host that has not measured something itself. Unknown is never free."""

from typing import Final

from gateway.fleet.ewma import Estimate
from gateway.fleet.snapshot import FleetSnapshot

DEFAULT_SERVICE_SECONDS: Final = 10.0
DEFAULT_PREFILL_RATE: Final = 500.0  # tokens per second
DEFAULT_DECODE_RATE: Final = 30.0  # tokens per second
DEFAULT_OUTPUT_TOKENS: Final = 256.0
UNMEASURED: Final = Estimate()


class Averages:
    """What the hosts of a snapshot have measured, on average. Each is worked out once, when first asked for."""

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self.snapshot = snapshot
        self._service: float | None = None
        self._found: dict[str, list[Estimate]] = {}
        self._load_rate: float | None = -1.0  # not asked for yet
        self._load: dict[str, float | None] = {}
        self._prefill: dict[str, float] = {}
        self._decode: dict[str, float] = {}

    def service_seconds(self) -> float:
        """How long a lease is held; the default if no host has measured it."""
        if self._service is None:
            known = _mean([host.service_seconds for host in self.snapshot.hosts])
            self._service = known or DEFAULT_SERVICE_SECONDS
        return self._service

    def load_seconds(self, digest: str) -> float | None:
        """How long this model takes to load; None if no host has measured it."""
        if digest not in self._load:
            self._load[digest] = _mean([estimate.load_seconds for estimate in self._estimates(digest)])
        return self._load[digest]

    def load_rate(self) -> float | None:
        """Bytes per second of loads; None if no host has measured it."""
        if self._load_rate == -1.0:
            self._load_rate = _mean([host.load_rate for host in self.snapshot.hosts])
        return self._load_rate

    def prefill_rate(self, digest: str) -> float:
        """Prompt tokens per second; the default if no host has measured it."""
        rate = self._prefill.get(digest)
        if rate is None:
            known = _mean([estimate.prefill_rate for estimate in self._estimates(digest)])
            rate = self._prefill[digest] = known or DEFAULT_PREFILL_RATE
        return rate

    def decode_rate(self, digest: str) -> float:
        """Output tokens per second; the default if no host has measured it."""
        rate = self._decode.get(digest)
        if rate is None:
            known = _mean([estimate.decode_rate for estimate in self._estimates(digest)])
            rate = self._decode[digest] = known or DEFAULT_DECODE_RATE
        return rate

    def output_tokens(self, digest: str) -> float:
        """How long an answer of this model is, over the whole fleet; the default if none was seen whole."""
        return self.snapshot.lengths.get(digest, DEFAULT_OUTPUT_TOKENS)

    def _estimates(self, digest: str) -> list[Estimate]:
        found = self._found.get(digest)
        if found is None:
            hosts = self.snapshot.hosts
            found = self._found[digest] = [host.estimates[digest] for host in hosts if digest in host.estimates]
        return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
