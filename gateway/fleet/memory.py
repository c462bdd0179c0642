"""What was measured here, how often and when: what a new start shall begin with, and a host that comes back. Pure.

Two sides: who measures says what the value is now (``keep``); who stores it takes what is ``new``, and at a start brings back what was
kept (``recall``). A host at another URL is another host, whatever its name.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.fleet.ewma import Estimate
from gateway.fleet.host import Host
from gateway.remembered import MOST, Measured, What

WEIGHT_MOST = 20.0  # samples: older ones hardly count in an average any more
HOSTS_LIMIT = 2048
VALUES_LIMIT = 3072  # of one host, or of the fleet
AGAIN_SECONDS = 86_400.0  # that something is as large as it ever was need not be written more often
FLEET = Host("", "")
Place = tuple[str, What]


class Remembered(NamedTuple):
    """What is remembered of one host; None and 0: nothing. ``estimates`` and ``parallel`` by digest."""

    service_seconds: float | None
    load_rate: float | None
    vram_bytes: int
    models: int
    estimates: dict[str, Estimate]
    parallel: dict[str, int]
    models_most: int


class Memory:
    """One fleet's. Bounded: what was measured longest ago is forgotten. Seconds are monotonic."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[Place, Measured]] = {}
        self._new: dict[tuple[str, str, What], Measured] = {}

    # -- measuring -------------------------------------------------------------------------------------------------------------

    def keep(self, host: Host, digest: str, what: What, value: float | None, now: float) -> None:
        """The value is this now. One that has not changed was not measured again, but for what was seen to be as large as ever."""
        if not value:
            return
        old = self._hosts.get(host.name, {}).get((digest, what))
        if old is not None and old.url != host.url:
            old = None
        if old is not None and old.value == value and (what not in MOST or now - old.at < AGAIN_SECONDS):
            return
        weight = value if what in MOST else min(WEIGHT_MOST, 1.0 + (old.weight if old else 0.0))
        row = Measured(host.name, digest, what, host.url, value, weight, now)
        self._put(row)
        self._new[row[:3]] = row

    def model(self, host: Host, digest: str, estimate: Estimate, now: float) -> None:
        """How fast a model is there now."""
        self.keep(host, digest, What.LOAD_SECONDS, estimate.load_seconds, now)
        self.keep(host, digest, What.PREFILL_RATE, estimate.prefill_rate, now)
        self.keep(host, digest, What.DECODE_RATE, estimate.decode_rate, now)

    def _put(self, row: Measured) -> None:
        values = self._hosts.pop(row.host, {})
        values.pop((row.digest, row.what), None)
        values[row.digest, row.what] = row
        self._hosts[row.host] = values
        while len(values) > VALUES_LIMIT:
            (digest, what) = next(iter(values))
            del values[digest, what]
            self._new.pop((row.host, digest, what), None)
        while len(self._hosts) > HOSTS_LIMIT:
            gone = next(iter(self._hosts))
            for digest, what in self._hosts.pop(gone):
                self._new.pop((gone, digest, what), None)

    # -- keeping ---------------------------------------------------------------------------------------------------------------

    def new(self) -> list[Measured]:
        """What was measured since it was last ``written``."""
        return list(self._new.values())

    def written(self, rows: Iterable[Measured]) -> None:
        """These are safe; what was measured meanwhile is not."""
        for row in rows:
            if self._new.get(row[:3]) is row:
                del self._new[row[:3]]

    def recall(self, rows: Iterable[Measured]) -> None:
        """What was kept before, but for what has been measured since."""
        for row in rows:
            old = self._hosts.get(row.host, {}).get((row.digest, row.what))
            if old is None or old.at < row.at:
                self._put(row)

    def of(self, host: Host) -> Remembered:
        """What is remembered of a host where it is now."""
        values = {place: row.value for place, row in self._hosts.get(host.name, {}).items() if row.url == host.url}
        speeds = (What.LOAD_SECONDS, What.PREFILL_RATE, What.DECODE_RATE)
        estimates = {
            digest: Estimate(*(values.get((digest, what)) for what in speeds))
            for digest, what in values
            if what in speeds
        }
        service, rate = values.get(("", What.SERVICE_SECONDS)), values.get(("", What.LOAD_RATE))
        vram, models = (int(values.get(("", what), 0)) for what in (What.VRAM_BYTES, What.MODELS))
        parallel = {digest: int(value) for (digest, what), value in values.items() if what is What.PARALLEL}
        most = int(values.get(("", What.MODELS_MOST), 0))
        return Remembered(service, rate, vram, models, estimates, parallel, most)

    def everywhere(self, what: What) -> dict[str, float]:
        """What is remembered of models wherever they are, by digest."""
        return {digest: row.value for (digest, kind), row in self._hosts.get("", {}).items() if kind is what}
