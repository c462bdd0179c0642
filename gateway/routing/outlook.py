"""What those who wait can expect, as far as it can be told: their place, what they wait for, and for how long. Pure.

They choose one after the other in the order of their turns, as ``assign`` would have them choose, each that waits for a host making it dearer for the
next. One decision stands for all of a kind. It is a forecast: who comes later may pass, and a host may fail.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heapreplace
from typing import Final, Literal, NamedTuple

from gateway.errors import DeadlineUnmet
from gateway.fleet.snapshot import FleetSnapshot
from gateway.record import Costs, Route
from gateway.routing.averages import Averages
from gateway.routing.policy import Unroutable
from gateway.routing.waiting import KindKey, Waiter

WaitsFor = Literal["slot", "load", "host"]
KINDS_MOST: Final = 32  # that are decided on; what others can expect is not told


class Outlook(NamedTuple):
    """``place`` from 1. ``waits_for``: "slot", "load" (until the host has loaded what it loads for somebody else) or "host" (nobody can take it now).
    Seconds from now; None: nobody knows."""

    place: int
    waits_for: WaitsFor
    host: str | None = None
    wait_seconds: float | None = None  # until it is let in
    first_token_seconds: float | None = None


class _Line:
    """The hosts that a kind can go to: the least first, as dear as when they were last looked at."""

    def __init__(self, costs: tuple[Costs, ...]) -> None:
        self.costs = costs
        self.row = [(cost.total, index, 0) for index, cost in enumerate(costs)]
        heapify(self.row)


def foresee(
    order: Iterable[Waiter], decide: Callable[[Waiter], Route | Unroutable], snapshot: FleetSnapshot
) -> list[Outlook]:
    """The outlook of each in ``order``, the one whose turn is next first. ``decide``: where one would go if nobody else waited."""
    views = {view.name: view for view in snapshot.hosts}
    averages = Averages(snapshot)
    ahead = dict.fromkeys(views, 0)
    lines: dict[KindKey, _Line] = {}
    told: list[Outlook] = []
    for place, waiter in enumerate(order, 1):
        line = lines.get(waiter.kind)
        if line is None:
            if len(lines) >= KINDS_MOST:
                told.append(Outlook(place, "slot"))
                continue
            route = decide(waiter)
            line = lines[waiter.kind] = _Line(route.costs if isinstance(route, Route) else ())
        if not line.row:
            told.append(Outlook(place, "host"))
            continue
        while True:
            _, index, counted = line.row[0]
            costs = line.costs[index]
            view = views[costs.host]
            before = ahead[costs.host]
            longer = before * (view.service_seconds or averages.service_seconds()) / view.slots
            if counted == before:
                break
            heapreplace(line.row, (costs.total + longer, index, before))
        ahead[costs.host] = before + 1
        wait = costs.queue_wait + longer
        waits_for: WaitsFor = "slot" if view.is_full(waiter.request.model) else "load"
        told.append(Outlook(place, waits_for, costs.host, wait, costs.first_token + longer))
    return told


def least_seconds(route: Route) -> float:
    """To the first token, on whichever host, once there is a slot: what no turn of the queue can spare."""
    return min([costs.first_token - costs.queue_wait for costs in route.costs])


def seconds_behind(place: int, model: str, snapshot: FleetSnapshot) -> float | None:
    """About how long one waits at ``place``, at the pace of all hosts that have the model: without a look at anybody, for those who are refused."""
    averages = Averages(snapshot)
    pace = sum(
        [
            view.slots / (view.service_seconds or averages.service_seconds())
            for view in snapshot.hosts
            if view.available and model in view.available
        ]
    )
    return place / pace if pace else None


def unmet(left: float, seconds: float, wait: float, place: int | None) -> DeadlineUnmet:
    """The first byte will come in ``seconds``, of which ``wait`` may pass with others' requests; the caller has ``left``. Coming again helps where it may pass."""
    retry_after = seconds - left if seconds - wait <= left else None
    error = DeadlineUnmet(
        f"the first byte would come in about {seconds:.1f} s, and the deadline is in {max(0.0, left):.1f} s",
        retry_after=retry_after,
    )
    error.place, error.wait_seconds, error.again = place, wait, retry_after is not None
    return error
