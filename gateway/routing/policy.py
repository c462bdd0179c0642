"""choose: filters give the hosts that may, scorers give seconds, the least wins. Pure; ``rng`` only breaks exact ties."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from gateway.dialects.request import InferenceRequest
from gateway.fleet.host import FleetSnapshot, HostView
from gateway.record import Costs, Rejected, Route, RouteReason
from gateway.routing.filters import LASTING, Rejection, in_words, reject
from gateway.routing.scorers import costs as score


class Chance(Protocol):
    """The part of random.Random that choosing needs."""

    def randrange(self, stop: int, /) -> int:
        """A number in 0 … stop − 1."""


@dataclass(frozen=True, slots=True)
class Unroutable:
    """No host may take the request. ``unknown_model``: every host that told its models lacks it."""

    unknown_model: bool
    rejected: tuple[Rejected, ...]


_NOBODY: AbstractSet[str] = frozenset()
_NOTHING: Mapping[str, int] = {}


def choose(
    request: InferenceRequest,
    snapshot: FleetSnapshot,
    rng: Chance,
    tried: AbstractSet[str] = _NOBODY,
    ahead: Mapping[str, int] = _NOTHING,
) -> Route | Unroutable:
    """The cheapest host for ``request``.

    ``ahead``: how many wait for a host before this request. When every host that has the model is ejected, the best of them is
    used all the same (panic mode) and the route says so.
    """
    fit: list[HostView] = []
    left_out: list[tuple[HostView, Rejection]] = []
    for view in snapshot.hosts:
        why = reject(request, view, tried)
        if why is None:
            fit.append(view)
        else:
            left_out.append((view, why))
    panic = not fit
    if panic:
        fit = [view for view, why in left_out if why not in LASTING and why is not Rejection.UNKNOWN] or [
            view for view, why in left_out if why is Rejection.UNKNOWN
        ]
    rejected = tuple(
        [Rejected(view.host.name, why, in_words(why, view)) for view, why in left_out if not panic or view not in fit]
    )
    if not fit:
        missing = all(why is Rejection.MODEL_MISSING for _, why in left_out)
        return Unroutable(missing, rejected)
    priced = sorted([(score(request, view, snapshot, ahead.get(view.host.name, 0)), view) for view in fit], key=_order)
    cheapest = priced[0][0].total
    ties = 1
    while ties < len(priced) and priced[ties][0].total == cheapest and priced[ties][1].leases == priced[0][1].leases:
        ties += 1
    if ties > 1 and (pick := rng.randrange(ties)):
        priced.insert(0, priced.pop(pick))
    chosen = priced[0]
    return Route(
        chosen[1].host.name,
        _reason(priced, panic=panic),
        tuple([(view.host.name, cost) for cost, view in priced]),
        rejected,
    )


def _order(priced: tuple[Costs, HostView]) -> tuple[float, int, str]:
    cost, view = priced
    return cost.total, view.leases, view.host.name


def _reason(priced: list[tuple[Costs, HostView]], *, panic: bool) -> RouteReason:
    if panic:
        return RouteReason.FALLBACK
    if len(priced) == 1:
        return RouteReason.ONLY_CANDIDATE
    chosen = priced[0][0]
    if chosen.affinity < 0:
        return RouteReason.AFFINITY
    if chosen.load_time > 0:
        return RouteReason.COLD_LOAD
    if any(cost.load_time > 0 for cost, _ in priced[1:]):
        return RouteReason.LOADED
    return RouteReason.LEAST_BUSY
