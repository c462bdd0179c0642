"""A host's slots: who holds them, and how many there are, over all models and for each."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

from gateway.fleet.host import Lease
from gateway.fleet.parallel import FOUND_MOST, WAIT_SECONDS, Parallel, Run
from gateway.record import Usage

MODELS_MOST: Final = 512  # of which it is known how many requests run at once
ENDED_MOST: Final = 64
_NONE: Mapping[str, float] = {}
_NOBODY: Mapping[int, "Out"] = {}


class Out:
    """A request for a model that is at the host: since when, when it should be over (0: nobody knows), and who was there with it, as ``Run`` has it."""

    __slots__ = ("alone", "beside", "since", "until")

    def __init__(self, since: float, until: float, beside: int) -> None:
        self.since, self.until, self.beside = since, until, beside
        self.alone = beside == 1


class Slots:
    """Of one host. ``count``: requests that may be out at once, as ``configured``, or else as many as any model was proved to run; ``limits``: by digest, of
    the models where that is found out: one more is tried beyond ``count``, but for that model alone. Changed by the fleet alone."""

    __slots__ = ("_ended", "_out", "_parallel", "configured", "count", "ends", "leased_at", "leases", "limits")

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.count = configured or 1
        self.leases = 0
        self.leased_at = float("-inf")
        self.ends: list[float] = []  # when each lease should be over, where that is known
        self.limits: Mapping[str, int] = {}
        self._out: dict[str, dict[int, Out]] = {}  # by digest and lease
        # a moment ago: what they showed is learned when the slot is somebody else's already
        self._ended: OrderedDict[int, Out] = OrderedDict()
        self._parallel: dict[str, Parallel] = {}

    def __repr__(self) -> str:
        return f"<Slots [{self.leases} of {self.count} leased]>"

    def configure(self, configured: int) -> None:
        """So many from now on; 0: that is found out. What was found under another ceiling is forgotten."""
        if configured != self.configured:
            self.configured, self._parallel = configured, {}
            self._renew()

    # -- leases ----------------------------------------------------------------------------------------------------------------

    def take(self, lease: Lease) -> None:
        """One is taken."""
        since, until, digest = lease.since, lease.until, lease.digest
        self.leases += 1
        self.leased_at = since
        if until:
            self.ends.append(until)
        if digest is None:
            return
        mine = self._out.get(digest)
        if mine is None:
            mine = self._out[digest] = {}
        count = len(mine) + 1
        for other in reversed(mine.values()):
            other.alone = False  # where there are more of them, they have not been that for long
            if other.beside >= count or since - other.since > WAIT_SECONDS:
                break  # so it is for all before it, which saw whatever this one saw
            other.beside = count  # this one may be there before it
        mine[lease.number] = Out(since, until, count)

    def give_back(self, lease: Lease) -> None:
        """It is free again."""
        self.leases -= 1
        if until := lease.until:
            self.ends.remove(until)
        digest, number = lease.digest, lease.number
        if digest is not None:
            mine = self._out[digest]
            self._ended[number] = mine.pop(number)
            if not mine:
                del self._out[digest]
            if len(self._ended) > ENDED_MOST:
                self._ended.popitem(last=False)

    def busy(self) -> Collection[str]:
        """The models of which requests are out."""
        return self._out.keys()

    def is_full(self, digest: str | None) -> bool:
        """Whether one more request for a model would have to wait."""
        if digest is None:
            return self.leases >= self.count
        limit = self.limit_of(digest)
        return self.leases >= max(self.count, limit) or len(self._out.get(digest, ())) >= limit

    # -- how many --------------------------------------------------------------------------------------------------------------

    def limit_of(self, digest: str) -> int:
        """How many requests for a model may be out at once."""
        return self.limits.get(digest) or self.configured or 1

    def crowded(self) -> Mapping[str, float]:
        """The models of which as many requests are out as may be, though slots are free, and when one of these should be over."""
        if self.count == 1 or (self.configured and not self.limits):
            return _NONE
        full = [(digest, mine) for digest, mine in self._out.items() if len(mine) >= self.limit_of(digest)]
        return {digest: min([one.until for one in mine.values()]) for digest, mine in full}

    def learn(self, lease: Lease, digest: str, usage: Usage, *, ours: bool) -> int | None:
        """Take in what a whole answer shows: the model's limit as it was proved, if anything is another now. ``ours``: no other gateway uses the host."""
        there = usage.total_seconds - usage.load_seconds
        if there < WAIT_SECONDS:
            return None  # it tells no durations, or was too short to tell
        worked = usage.prefill_seconds + usage.decode_seconds
        idle = max(0.0, there - worked)
        out = self._ended.get(lease.number) or self._out.get(digest, _NOBODY).get(lease.number)
        if out is None or not usage.decode_seconds or (worked < WAIT_SECONDS and idle < WAIT_SECONDS):
            return None
        ended = lease.since + usage.total_seconds
        known = self._parallel.get(digest)
        if known is None:
            known = self._parallel[digest] = Parallel(self.configured or 1, self.configured or FOUND_MOST)
            if len(self._parallel) > MODELS_MOST:
                del self._parallel[next(iter(self._parallel))]
        if not known.learn(Run(out.beside, out.alone, ended - worked, ended, idle), ours=ours):
            return None
        self._renew()
        return known.proved

    def remember(self, limits: Mapping[str, int]) -> None:
        """What was found out before, by digest, where nothing is known yet."""
        for digest, limit in limits.items():
            if digest not in self._parallel and len(self._parallel) < MODELS_MOST:
                self._parallel[digest] = Parallel(limit, self.configured or FOUND_MOST)
        self._renew()

    def _renew(self) -> None:
        found = {digest: known.limit for digest, known in self._parallel.items()}
        self.limits = {digest: limit for digest, limit in found.items() if limit != self.configured}
        self.count = self.configured or max([known.proved for known in self._parallel.values()], default=1)
