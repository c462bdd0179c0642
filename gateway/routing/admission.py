"""The waiting room. One synchronous function, ``assign``, looks at all that waits and all that is free and hands out what can be
handed out; it runs whenever anything changed: a request came, a slot was freed, a poll came in, a waiter left.

A request is bound late: to the host that is cheapest when it is granted, counting those that wait before it. It is granted only
if that host has a free slot; if waiting for a warm host is cheaper than loading the model on a free one, it waits.

Waiters stand in lanes, one per model, runner options and pin, each first come, first served. ``assign`` merges the lanes by age, those of
what runs in the background (titles) behind all others, and looks at most LOOK_AHEAD deep into a lane that gets nothing: so one long lane cannot make a step slow, nor starve another lane.
"""

import heapq
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from gateway.dialects.request import InferenceRequest
from gateway.errors import QueueFull
from gateway.fleet.host import Lease
from gateway.fleet.registry import Fleet
from gateway.record import Route
from gateway.routing.policy import Chance, Unroutable, choose
from gateway.routing.ranks import Policy

NOBODY: frozenset[str] = frozenset()
LOOK_AHEAD = 32
RETRY_AFTER_SECONDS = 5.0


class Grant(NamedTuple):
    """A decision and the slot that goes with it."""

    route: Route
    lease: Lease


Verdict = Grant | Unroutable


class Waiter:
    """One request in the waiting room. ``deliver`` takes the verdict, or answers False if nobody is there to take it."""

    __slots__ = ("deliver", "lane", "request", "seq", "since", "tried")

    def __init__(
        self,
        request: InferenceRequest,
        tried: AbstractSet[str],
        seq: int,
        since: float,
        deliver: Callable[[Verdict], bool],
    ) -> None:
        self.request = request
        self.tried = tried
        self.seq = seq
        self.since = since
        self.deliver = deliver
        self.lane = (request.background, request.model, request.runner_options, request.pin)


class Admission:
    """Grants leases. ``limit``: requests that may wait, in all."""

    def __init__(self, fleet: Fleet, limit: int, rng: Chance, policy: Policy = Policy.PREDICTIVE) -> None:
        self._fleet = fleet
        self._rng = rng
        self.policy = policy
        self._lanes: dict[tuple[bool, str, Any, str], deque[Waiter]] = {}
        self._waiting = 0
        self._settled = -1  # the fleet's version when everybody who waits was last looked at
        self._ahead: dict[str, int] = {}  # how many waited for each host then
        self._seq = 0
        self.limit = limit

    def __repr__(self) -> str:
        return f"<Admission [{self._waiting} of {self.limit} waiting in {len(self._lanes)} lanes]>"

    def __len__(self) -> int:
        return self._waiting

    def waiting(self) -> list[Waiter]:
        """Everyone who waits, in order of arrival."""
        return sorted((waiter for lane in self._lanes.values() for waiter in lane), key=lambda waiter: waiter.seq)

    def places(self) -> dict[str, int]:
        """The ids of all that wait → their place, 1 for the one that is looked at first. Others may pass it: for a host that it does not want."""
        order = sorted(self.waiting(), key=lambda waiter: waiter.request.background)
        return {waiter.request.id: place for place, waiter in enumerate(order, 1)}

    def grant(self, request: InferenceRequest, now: float, tried: AbstractSet[str] = NOBODY) -> Verdict | None:
        """Grant or refuse at once; None: it has to wait (``join``).

        Who waits comes first: time alone may have freed a host (its ejection is over) since anybody was asked. Then nobody is
        overtaken by taking what is free still.
        """
        if self._waiting and not self._is_settled(now):
            self.assign(now)
        return self._decide(request, tried, now, {})

    def join(
        self,
        request: InferenceRequest,
        now: float,
        deliver: Callable[[Verdict], bool],
        tried: AbstractSet[str] = NOBODY,
    ) -> Waiter:
        """Enter the waiting room; ``deliver`` may be called before this returns. Raises QueueFull."""
        if self._waiting >= self.limit:
            raise QueueFull(
                f"the queue is full: {self._waiting} requests wait already", retry_after=RETRY_AFTER_SECONDS
            )
        self._seq += 1
        waiter = Waiter(request, tried, self._seq, now, deliver)
        lane = self._lanes.setdefault(waiter.lane, deque())
        lane.append(waiter)
        self._waiting += 1
        if self._waiting == 1:
            self._ahead, self._settled = {}, self._fleet.version
        if not self._is_settled(now):
            self.assign(now)
        elif (
            len(lane) <= LOOK_AHEAD
        ):  # nothing changed for the others; counting those ahead, another host may be cheaper
            self._offer(waiter, now, self._ahead)
        return waiter

    def withdraw(self, waiter: Waiter, now: float) -> None:
        """The waiter left. Nobody gains by it at once: who waits, waits for a host without a free slot."""
        lane = self._lanes.get(waiter.lane)
        if lane is None or waiter not in lane:
            return
        lane.remove(waiter)
        self._left(waiter)
        self._settled = -1
        if len(lane) >= LOOK_AHEAD:  # somebody comes within sight
            self.assign(now)

    def release(self, lease: Lease, now: float) -> None:
        """Give a slot back and hand it to whoever is next."""
        if self._fleet.release(lease) and self._waiting:
            self.assign(now)

    def assign(self, now: float) -> None:
        """Hand out all that can be handed out."""
        if not self._waiting:
            return
        ahead: dict[str, int] = {}
        heads = [(key[0], lane[0].seq, key, 0) for key, lane in self._lanes.items()]
        heapq.heapify(heads)
        lanes = {key: list(lane) for key, lane in self._lanes.items()}
        misses = dict.fromkeys(lanes, 0)
        free = sum(view.free_slots for view in self._fleet.snapshot(now).hosts)
        while heads and free > 0:
            _, _, key, index = heapq.heappop(heads)
            waiter = lanes[key][index]
            taken = self._offer(waiter, now, ahead)
            if taken is None:
                misses[key] += 1
            elif taken:
                free -= 1
            if index + 1 < len(lanes[key]) and misses[key] < LOOK_AHEAD:
                heapq.heappush(heads, (key[0], lanes[key][index + 1].seq, key, index + 1))

        self._settled, self._ahead = self._fleet.version, ahead

    def _is_settled(self, now: float) -> bool:
        """Whether nothing has changed since ``assign`` looked at everybody; time alone may end an ejection."""
        self._fleet.snapshot(now)
        return self._settled == self._fleet.version

    def _offer(self, waiter: Waiter, now: float, ahead: dict[str, int]) -> bool | None:
        """Decide on one who waits: whether a slot was taken. None: they wait on."""
        verdict = self._decide(waiter.request, waiter.tried, now, ahead)
        if verdict is None:
            return None
        self._lanes[waiter.lane].remove(waiter)
        self._left(waiter)
        if not waiter.deliver(verdict) and isinstance(verdict, Grant):
            self._fleet.release(verdict.lease)
            return False
        return isinstance(verdict, Grant)

    def _decide(
        self, request: InferenceRequest, tried: AbstractSet[str], now: float, ahead: dict[str, int]
    ) -> Verdict | None:
        """A grant, a refusal, or None: the best host is worth waiting for (which is then noted in ``ahead``)."""
        route = choose(request, self._fleet.snapshot(now), self._rng, tried, ahead, self.policy)
        if isinstance(route, Unroutable):
            return route
        if self._fleet.free_slots(route.host) <= ahead.get(route.host, 0):
            ahead[route.host] = ahead.get(route.host, 0) + 1
            return None
        costs = route.costs[0]
        lease = self._fleet.lease(
            route.host,
            request.model,
            request.runner_options,
            now,
            cold=costs.load_time > 0,
            prefix=request.prefix,
            seconds=costs.held,
        )
        return Grant(route, lease)

    def _left(self, waiter: Waiter) -> None:
        self._waiting -= 1
        if not self._lanes[waiter.lane]:
            del self._lanes[waiter.lane]
