"""Who waits, and what they have in common: requests of one kind can go to the same hosts at the same price, but for what is cached of their
prompts. So one decision stands for the kind, until somebody of it is let in.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from heapq import heapify, heapreplace
from math import inf
from typing import Any, Final

from gateway.dialects.request import InferenceRequest
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Costs
from gateway.routing.averages import Averages

NEVER: Final = inf
KindKey = tuple[str, Any, str, tuple[str, ...], AbstractSet[str]]


class Waiter:
    """One request in the waiting room. ``deliver`` takes the verdict, or answers False if nobody is there to take it."""

    __slots__ = ("deliver", "due", "kind", "least", "party", "request", "seq", "since", "tried")

    def __init__(
        self,
        request: InferenceRequest,
        tried: AbstractSet[str],
        seq: int,
        since: float,
        deliver: Callable[[Any], bool],
        due: float = NEVER,
    ) -> None:
        self.request = request
        self.party = request.party
        self.tried = tried
        self.seq = seq
        self.since = since
        self.deliver = deliver
        self.due = due  # when its first byte has to be there
        self.least = 0.0  # seconds to the first token once there is a slot, as predicted when it was last looked at
        self.kind: KindKey = (request.model, request.runner_options, request.pin, request.hosts, tried)


class Kind:
    """How many wait, and ``ahead``: for which hosts, as far as anybody looked. The rest is of one round of ``assign``:
    ``passed`` wait on without a look, ``back`` is by how many seconds they stand back, ``over`` that nobody else is let in.
    """

    __slots__ = ("ahead", "back", "count", "over", "passed")

    def __init__(self) -> None:
        self.count = 0
        self.ahead: dict[str, int] = {}
        self.begin()

    def begin(self) -> None:
        """Another round."""
        self.passed = 0
        self.back = 0.0
        self.over = False


def spread(
    costs: tuple[Costs, ...],
    views: Mapping[str, HostView],
    averages: Averages,
    may: Callable[[Costs], bool],
    count: int,
) -> tuple[int, dict[str, int]]:
    """Let ``count`` equal requests choose one after the other: how many wait before one finds a host cheapest that takes it now, and for which hosts.

    The first of them finds ``costs``; each that waits for a host makes it dearer for the next. ``count``: all of them wait.
    """
    row = [(cost.total, index) for index, cost in enumerate(costs)]
    heapify(row)
    ahead: dict[str, int] = {}
    for number in range(count):
        total, index = row[0]
        if may(costs[index]):
            return number, ahead
        name = costs[index].host
        view = views[name]
        ahead[name] = ahead.get(name, 0) + 1
        step = (view.service_seconds or averages.service_seconds()) / view.slots
        heapreplace(row, (total + step, index))
    return count, ahead


def add(some: Mapping[str, int], ahead: dict[str, int]) -> None:
    """Count those who wait for each host."""
    for name, count in some.items():
        ahead[name] = ahead.get(name, 0) + count


def any_free(model: str, snapshot: FleetSnapshot) -> bool:
    """Whether a decision is worth its price: a host with a free slot could take it, or nobody can any more."""
    known = False
    for view in snapshot.hosts:
        if view.available is None or model in view.available:
            known = True
            if not view.is_full(model):
                return True
    return not known
