"""Which models are in which host's memory, and every coming and going: pure, from what polls see and what answers prove.

A load is proven by the first byte of an answer, or seen by a poll, whichever comes first; the other then tells nothing new. What comes and
goes between two polls without a request of ours leaves no trace; what goes and comes back with another context looks like a reload.

| what happens                                                    | is told as                         |
|-----------------------------------------------------------------|------------------------------------|
| an answer of a model that was not there                         | load, by a request (or a preload)  |
| … that was there, but was leased as cold after it came          | unload (reloaded), and load        |
| /api/ps lists a model that was not there                        | load: by a request if one waits for it, else not through us |
| … with another context than before                              | unload (reloaded), and load        |
| /api/ps lists it no more, though it was there as the poll began | unload: expired if its time was up, else evicted; of one whose time nobody was told, evicted if another came after it and is there, or is being loaded for us |
| … while a request of ours waits for it to be loaded anew         | nothing yet: its first byte will tell, or a later poll |
| we had it unloaded                                              | unload (requested)                 |
| the host cannot be reached                                      | unload (host_lost)                 |
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from enum import StrEnum
from math import inf
from typing import Final, NamedTuple

from gateway.fleet.host import LoadedModel, ReloadCause

SLACK_SECONDS: Final = 2.0  # between our clock and a host's, and for a model that goes a moment before its time


class Trigger(StrEnum):
    """What a model was loaded for."""

    REQUEST = "request"
    PRELOAD = "preload"  # a request that only loads
    ELSEWHERE = "elsewhere"  # not through this gateway


class UnloadReason(StrEnum):
    """Why a model left memory."""

    EXPIRED = "expired"
    EVICTED = "evicted"
    RELOADED = "reloaded"  # with other options
    REQUESTED = "requested"
    HOST_LOST = "host_lost"


class Load(NamedTuple):
    """A model came into memory."""

    host: str
    model: str
    trigger: Trigger


class Unload(NamedTuple):
    """A model left memory."""

    host: str
    model: str
    reason: UnloadReason
    cause: ReloadCause | None = None  # of a reload


class _Resident(NamedTuple):
    """``at``: when it was last known to have come, monotonic; ``context`` and ``expires_at`` as the last poll told, 0 and None before one."""

    model: str
    at: float
    context: int
    expires_at: float | None


class Residence:
    """Every host's. ``told`` is called with each change. Seconds are monotonic but for ``wall``, which is Unix time."""

    def __init__(self, told: Callable[[Load | Unload], None]) -> None:
        self._told = told
        self._hosts: dict[str, dict[str, _Resident]] = {}
        self._emptied: dict[str, float] = {}  # when something last left a host by our word, or with it

    def proved(
        self,
        host: str,
        digest: str,
        model: str,
        trigger: Trigger,
        *,
        since: float | None,
        now: float,
        cause: ReloadCause | None = None,
    ) -> None:
        """The first byte of an answer came. ``since``: when its lease was taken, if the model was to be loaded for it; ``cause``: why anew."""
        held = self._hosts.setdefault(host, {})
        before = held.get(digest)
        if before is not None and (since is None or since <= before.at):
            return
        if before is not None:
            self._told(Unload(host, before.model, UnloadReason.RELOADED, cause or ReloadCause.UNKNOWN))
        held[digest] = _Resident(model, now, 0, None)
        self._told(Load(host, model, trigger))

    def seen(
        self,
        host: str,
        loaded: Iterable[LoadedModel],
        loading: Collection[str],
        *,
        began: float,
        now: float,
        wall: float,
    ) -> None:
        """A poll that began then lists these. ``loading``: digests that a request of ours waits for."""
        held = self._hosts.setdefault(host, {})
        gone = dict(held)
        stale = began <= self._emptied.get(host, -inf)  # what it lists may be what has left since
        for model in _one_each(loaded, held):
            before = gone.pop(model.digest, None)
            if (stale and before is None) or (before is not None and before.at >= began):
                continue  # the next poll will know
            trigger = Trigger.REQUEST if model.digest in loading else Trigger.ELSEWHERE
            at = now
            if before is None:
                self._told(Load(host, model.name, trigger))
            elif before.context and before.context != model.context:
                ours = trigger is Trigger.REQUEST
                cause = ReloadCause.NUM_CTX if ours else ReloadCause.ELSEWHERE
                self._told(Unload(host, before.model, UnloadReason.RELOADED, cause))
                self._told(Load(host, model.name, trigger))
            else:
                at = before.at
            held[model.digest] = _Resident(model.name, at, model.context, expiry(model.expires_at))
        for digest, lost in gone.items():
            if lost.at < began and digest not in loading:  # what came while the poll was on its way, it may have missed
                del held[digest]
                if lost.expires_at is not None:
                    late = lost.expires_at <= wall + SLACK_SECONDS
                else:
                    late = not loading and all(one.at <= lost.at for other, one in held.items() if other not in gone)
                self._told(Unload(host, lost.model, UnloadReason.EXPIRED if late else UnloadReason.EVICTED))

    def unloaded(self, host: str, digest: str, now: float) -> None:
        """On our word."""
        self._emptied[host] = now
        if (lost := self._hosts.get(host, {}).pop(digest, None)) is not None:
            self._told(Unload(host, lost.model, UnloadReason.REQUESTED))

    def lost(self, host: str, now: float) -> None:
        """Nobody listens there any more."""
        self._emptied[host] = now
        for resident in self._hosts.pop(host, {}).values():
            self._told(Unload(host, resident.model, UnloadReason.HOST_LOST))

    def configure(self, hosts: Collection[str]) -> None:
        """Forget the hosts that are not among these: they are no business of ours."""
        self._hosts = {host: held for host, held in self._hosts.items() if host in hosts}
        self._emptied = {host: at for host, at in self._emptied.items() if host in hosts}


def _one_each(loaded: Iterable[LoadedModel], held: dict[str, _Resident]) -> Iterable[LoadedModel]:
    """One row of each digest: servers that load a model twice list it twice. The one that was there before, if it is known which."""
    rows: dict[str, LoadedModel] = {}
    for model in loaded:
        known = held.get(model.digest)
        if model.digest not in rows or (known is not None and known.context == model.context):
            rows[model.digest] = model
    return rows.values()


def expiry(text: str) -> float | None:
    """Unix seconds of a host's ``expires_at``, RFC 3339 with nanoseconds; None where it says no time, or one before all computers."""
    try:
        at = datetime.fromisoformat(text)
        return at.timestamp() if at.tzinfo is not None and at.year > 1 else None
    except (ValueError, OverflowError):
        return None
