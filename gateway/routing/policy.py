"""choose: filters give the hosts that may, scorers give seconds, the least wins. Pure. Other policies (ranks.py) rank by less."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from typing import Final, NamedTuple, Protocol

from gateway.dialects.request import InferenceRequest
from gateway.fleet.health import State
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Costs, Rejected, Route, RouteReason
from gateway.routing.averages import Averages
from gateway.routing.filters import LASTING, Rejection, in_words, reject
from gateway.routing.ranks import Policy, rank
from gateway.routing.scorers import costs as score
from gateway.routing.scorers import quote

_PREDICTIVE: Final = Policy.PREDICTIVE
_ONLY_CANDIDATE: Final = RouteReason.ONLY_CANDIDATE
_LOADED: Final = RouteReason.LOADED
_AFFINITY: Final = RouteReason.AFFINITY


class Chance(Protocol):
    """The part of random.Random that choosing needs."""

    def randrange(self, stop: int, /) -> int:
        """A number in 0 … stop − 1."""


class Unroutable(NamedTuple):
    """No host may take the request. ``unknown_model``: hosts have told their models, and none of them has it."""

    unknown_model: bool
    rejected: tuple[Rejected, ...]


HOSTS_TOLD: Final = 64
"""Of those that might have taken a request, and of those left out: nobody reads about more."""

_NOBODY: AbstractSet[str] = frozenset()
_NOTHING: Mapping[str, int] = {}


def choose(
    request: InferenceRequest,
    snapshot: FleetSnapshot,
    rng: Chance,
    tried: AbstractSet[str] = _NOBODY,
    ahead: Mapping[str, int] = _NOTHING,
    policy: Policy = _PREDICTIVE,
) -> Route | Unroutable:
    """The cheapest host for ``request``, or the first by another ``policy``.

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
            view for view, why in left_out if why is Rejection.UNKNOWN and _answers(view)
        ]
        left_out = [(view, why) for view, why in left_out if view not in fit]
    rejected: tuple[Rejected, ...] = ()
    if left_out:
        rejected = tuple([Rejected(view.name, why, in_words(why, view)) for view, why in left_out[:HOSTS_TOLD]])
    if not fit:
        reasons = {why for _, why in left_out} - {Rejection.PINNED, Rejection.NOT_ALLOWED, Rejection.UNKNOWN}
        missing = reasons == {Rejection.MODEL_MISSING}
        return Unroutable(missing, rejected)
    averages = Averages(snapshot)
    if len(fit) == 1:
        only = score(request, fit[0], averages, ahead.get(fit[0].name, 0))
        why_it = RouteReason.PINNED if request.pin else _ONLY_CANDIDATE
        return Route(only.host, RouteReason.FALLBACK if panic else why_it, (only,), rejected)
    if len(fit) > HOSTS_TOLD:
        fit = _foremost(fit, request, averages, ahead, policy)
    priced = []  # flat rows that begin with a number: they sort in half the time
    for view in fit:
        before = ahead.get(view.name, 0) if ahead else 0
        costs = score(request, view, averages, before)
        first, second, third = rank(policy, costs.total, costs.load_time, view, before)
        priced.append((first, second, third, costs.host, costs))
    priced.sort()
    ties = 1
    while ties < len(priced) and priced[ties][:3] == priced[0][:3]:
        ties += 1
    if ties > 1 and (pick := rng.randrange(ties)):
        priced.insert(0, priced.pop(pick))
    ranking = tuple([row[4] for row in priced])
    return Route(ranking[0].host, _reason(ranking, panic=panic), ranking, rejected)


def _foremost(
    fit: list[HostView], request: InferenceRequest, averages: Averages, ahead: Mapping[str, int], policy: Policy
) -> list[HostView]:
    """Those that stand best, told by numbers alone: of a thousand hosts nobody reads what all of them would cost."""
    rows = []
    for view in fit:
        before = ahead.get(view.name, 0) if ahead else 0
        numbers = quote(request, view, averages, before)
        first, second, third = rank(policy, numbers[0], numbers[2], view, before)
        rows.append((first, second, third, view.name, view))
    return [row[4] for row in nsmallest(HOSTS_TOLD, rows)]


def _answers(view: HostView) -> bool:
    """Whether a host that has not told its models is worth a try all the same."""
    return view.seen_at is not None and view.state is not State.EJECTED


def _reason(ranking: tuple[Costs, ...], *, panic: bool) -> RouteReason:
    if panic:
        return RouteReason.FALLBACK
    chosen = ranking[0]
    if chosen.affinity < 0:
        return _AFFINITY
    if chosen.load_time > 0:
        return RouteReason.COLD_LOAD
    if any(costs.load_time > 0 for costs in ranking[1:]):
        return _LOADED
    return RouteReason.LEAST_BUSY
