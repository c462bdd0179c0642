"""The waiting room. One synchronous function, ``assign``, looks at all that waits and all that is free and hands out what can be
handed out; it runs whenever anything changed: a request came, a slot was freed, a model is loaded, a poll came in, a waiter left.

A request is bound late: to the host that is cheapest when it is granted, counting those that wait before it. It is granted only if that host has a
free slot, and loads nothing else if it has to load; if waiting for a warm host is cheaper than loading the model on a free one, it waits.

Whose turn it is:
1. by priority, then by fair shares of predicted seconds (shares.py), then first come, first served;
2. but who needs a model loaded stands back, by the seconds that the load costs them and others: those who want what is loaded go together;
3. and of ELDEST_EVERY grants one goes to whoever has waited longest, whatever the above: nobody starves.

Who says until when the first byte has to come (``due``) is refused as soon as it will not, as far as can be told.
"""

import heapq
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from gateway.dialects.request import InferenceRequest, Priority
from gateway.errors import DeadlineUnmet, QueueFull
from gateway.fleet.host import Lease
from gateway.fleet.registry import Fleet
from gateway.fleet.residence import Trigger
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Costs, Route
from gateway.routing.averages import Averages
from gateway.routing.outlook import Outlook, foresee, least_seconds, seconds_behind, unmet
from gateway.routing.policy import Chance, Unroutable, choose
from gateway.routing.ranks import Policy
from gateway.routing.shares import Shares
from gateway.routing.waiting import NEVER, Kind, KindKey, Waiter, add, any_free, spread

_PREDICTIVE: Final = Policy.PREDICTIVE

NOBODY: frozenset[str] = frozenset()
RETRY_AFTER_SECONDS: Final = 5.0  # for who is refused where nobody knows how long those who wait will take
LOOK_AHEAD: Final = 32  # of one kind: those behind are decided on when somebody before them has left
ELDEST_EVERY: Final = 16


class Grant:
    """A decision and the slot that goes with it."""

    __slots__ = ("lease", "route")

    def __init__(self, route: Route, lease: Lease) -> None:
        self.route = route
        self.lease = lease


Verdict = Grant | Unroutable | DeadlineUnmet


class Turn(NamedTuple):
    """Where somebody stands: the least is next. ``back``: of ``stands``, the seconds by which they stand back."""

    priority: int
    stands: float
    seq: int
    back: float


def _to_nobody(_verdict: Verdict) -> bool:
    return False


class Admission:
    """Grants leases. ``limit``: requests that may wait, in all; ``per_principal``: of one principal, 0: as many."""

    def __init__(
        self, fleet: Fleet, limit: int, rng: Chance, policy: str = _PREDICTIVE, per_principal: int = 0
    ) -> None:
        self._fleet = fleet
        self._rng = rng
        self.policy = Policy(policy)
        self._waiters: dict[int, Waiter] = {}  # by arrival
        self._kinds: dict[KindKey, Kind] = {}
        self._shares = {priority: Shares() for priority in Priority}
        self._settled = -1  # the fleet's version when everybody who waits was last looked at
        self._ahead: dict[str, int] = {}  # how many waited for each host then
        self._seq = 0
        self._younger = 0  # grants since one went to whoever had waited longest
        self._certain = NEVER  # until then nobody's deadline is out of reach for certain
        self.limit = limit
        self.per_principal = per_principal

    def __repr__(self) -> str:
        return f"<Admission [{len(self)} of {self.limit} waiting, of {len(self._kinds)} kinds]>"

    def __len__(self) -> int:
        return len(self._waiters)

    def waiting(self) -> list[Waiter]:
        """Everyone who waits, in order of arrival."""
        return list(self._waiters.values())

    def outlook(self, now: float) -> list[tuple[Waiter, Outlook]]:
        """All that wait, in the order in which they are looked at, and what they can expect. Others may pass them: for a host that they do not want."""
        return self._foreseen(self._turns(), now)

    def foretell(self, request: InferenceRequest, now: float) -> Outlook | None:
        """What ``request`` could expect if it came now; None: it would not wait."""
        route = self._choose(request, self._fleet.snapshot(now), NOBODY, self._ahead if self._waiters else {})
        if isinstance(route, Unroutable) or self._may(route.costs[0], request.model):
            return None
        newcomer = Waiter(request, NOBODY, self._seq + 1, now, _to_nobody)
        turn = Turn(request.priority, self._shares[request.priority].would_stand(request.party), newcomer.seq, 0.0)
        return self._foreseen([*self._turns(), (turn, newcomer)], now, newcomer)[-1][1]

    def _turns(self) -> list[tuple[Turn, Waiter]]:
        return [(self._turn(waiter, 0.0), waiter) for waiter in self._waiters.values()]

    def _foreseen(
        self, turns: list[tuple[Turn, Waiter]], now: float, last: Waiter | None = None
    ) -> list[tuple[Waiter, Outlook]]:
        """As far as ``last``: those behind it change nothing for it."""
        order = [waiter for _, waiter in sorted(turns, key=lambda pair: pair[0])]
        if last is not None:
            del order[order.index(last) + 1 :]
        snapshot = self._fleet.snapshot(now)
        told = foresee(order, lambda waiter: self._choose(waiter.request, snapshot, waiter.tried, {}), snapshot)
        return list(zip(order, told, strict=True))

    def grant(
        self, request: InferenceRequest, now: float, tried: AbstractSet[str] = NOBODY, due: float = NEVER
    ) -> Verdict | None:
        """Grant or refuse at once; None: it has to wait (``join``). ``due``: when its first byte has to be there, on the clock of ``now``.

        Who waits comes first: time alone may have freed a host (its ejection is over) since anybody was asked. Then nobody is
        overtaken by taking what is free still.
        """
        if self._waiters and not self._is_settled(now):
            self.assign(now)
        snapshot = self._fleet.snapshot(now)
        route = self._choose(request, snapshot, tried, {})
        if isinstance(route, Unroutable):
            return route
        if not self._may(route.costs[0], request.model):
            return None
        if due < NEVER and now + route.predicted_seconds > due:
            return unmet(due - now, route.predicted_seconds, 0.0, None)
        granted = self._leased(request, route, now)
        if self._waiters:  # a slot that is taken changes nothing for the better
            self._settled = self._fleet.version
        return granted

    def join(
        self,
        request: InferenceRequest,
        now: float,
        deliver: Callable[[Verdict], bool],
        tried: AbstractSet[str] = NOBODY,
        due: float = NEVER,
    ) -> Waiter:
        """Enter the waiting room; ``deliver`` may be called before this returns. Raises QueueFull."""
        if len(self) >= self.limit:
            waiting = "1 request waits" if len(self) == 1 else f"{len(self)} requests wait"
            raise self._full(request, f"the queue is full: {waiting} already", now)
        if self.per_principal:
            mine = sum([shares.waiting(request.party) for shares in self._shares.values()])
            if mine >= self.per_principal:
                waiting = "1 request of yours waits" if mine == 1 else f"{mine} requests of yours wait"
                raise self._full(request, f"{waiting} already, which is as many as may", now)
        self._seq += 1
        waiter = Waiter(request, tried, self._seq, now, deliver, due)
        if not self._waiters:
            self._ahead, self._settled = {}, self._fleet.version
        kind = self._enter(waiter)
        if due < NEVER and not self._is_in_time(waiter, now):
            return waiter
        if not self._is_settled(now):
            self.assign(now)
            return waiter
        # nothing changed for the others; counting those ahead, another host may be cheaper
        if kind.count <= LOOK_AHEAD:
            route = self._choose(request, self._fleet.snapshot(now), tried, self._ahead)
            if isinstance(route, Unroutable):
                self._refuse(waiter, route)
            elif self._may(route.costs[0], request.model):
                self._let_in(waiter, route, now)
                self._settled = self._fleet.version
            else:
                add({route.host: 1}, self._ahead)
                add({route.host: 1}, kind.ahead)
        return waiter

    def withdraw(self, waiter: Waiter, now: float) -> None:
        """The waiter left. Nobody gains by it at once: who waits, waits for a host without a free slot."""
        if waiter.seq not in self._waiters:
            return
        far = self._kinds[waiter.kind].count > LOOK_AHEAD
        self._leave(waiter)
        self._settled = -1
        if far:  # somebody comes within sight
            self.assign(now)

    def release(self, lease: Lease, now: float) -> None:
        """Give a slot back and hand it to whoever is next."""
        if self._fleet.release(lease, now) and self._waiters:
            self.assign(now)

    def answered(self, lease: Lease, model: str, now: float, trigger: Trigger = Trigger.REQUEST) -> None:
        """The first byte of an answer came: if the model was loaded for it, the next load can begin."""
        self._fleet.answered(lease, model, now, trigger)
        if lease.cold and self._waiters:
            self.assign(now)

    def assign(self, now: float) -> None:
        """Hand out all that can be handed out."""
        if now > self._certain:
            self._expire(now)
        if not self._waiters:
            return
        free = self._free(now)
        if not free:  # nobody can be let in, and who waits for whom has not changed
            self._settled = self._fleet.version
            return
        ahead: dict[str, int] = {}
        for kind in self._kinds.values():
            kind.begin()
        heap = [self._turn(waiter, 0.0) for waiter in self._waiters.values()]
        heapq.heapify(heap)
        while heap and free:
            turn = heapq.heappop(heap)
            waiter = self._waiters[turn.seq]
            again = self._turn(waiter, turn.back)
            if again != turn:  # its principal was served meanwhile
                heapq.heappush(heap, again)
                continue
            back = self._attend(waiter, turn.back, now, ahead)
            if back is not None:
                heapq.heappush(heap, self._turn(waiter, back))
            elif turn.seq not in self._waiters:
                free = self._free(now)
        self._settled, self._ahead = self._fleet.version, ahead

    def _free(self, now: float) -> bool:
        """Whether any host has a free slot."""
        return any(view.leases < view.most for view in self._fleet.snapshot(now).hosts)

    def _turn(self, waiter: Waiter, back: float) -> "Turn":
        """Where somebody stands among all who wait."""
        if self._younger >= ELDEST_EVERY and waiter.seq == next(iter(self._waiters)):
            return Turn(-1, 0.0, waiter.seq, back)
        priority = waiter.request.priority
        return Turn(priority, self._shares[priority].stands(waiter.party) + back, waiter.seq, back)

    def _attend(self, waiter: Waiter, back: float, now: float, ahead: dict[str, int]) -> float | None:
        """Look at one who waits: they are let in, refused or wait on (None), or stand back by so many seconds."""
        kind = self._kinds[waiter.kind]
        if kind.over:
            return None
        if kind.passed:
            kind.passed -= 1
            return None
        if kind.back > back and self._younger < ELDEST_EVERY:
            return kind.back
        snapshot = self._fleet.snapshot(now)
        if not any_free(waiter.request.model, snapshot):
            kind.over = True
            add(kind.ahead, ahead)
            return None
        route = self._choose(waiter.request, snapshot, waiter.tried, ahead)
        if isinstance(route, Unroutable):
            self._refuse(waiter, route)
            return None
        costs = route.costs[0]
        if not self._may(costs, waiter.request.model):
            self._wait_on(kind, waiter.request.model, route, snapshot, ahead)
            return None
        kind.back = costs.load_time + costs.harm if self.policy is _PREDICTIVE else 0.0
        if kind.back > back and self._younger < ELDEST_EVERY:
            return kind.back
        if now + route.predicted_seconds > waiter.due:
            self._refuse(waiter, unmet(waiter.due - now, route.predicted_seconds, 0.0, None))
        else:
            self._let_in(waiter, route, now)
        return None

    def _wait_on(self, kind: Kind, model: str, route: Route, snapshot: FleetSnapshot, ahead: dict[str, int]) -> None:
        """The first of its kind waits: those behind it too, but for one who, counting them all, finds a free host cheaper."""
        count, more = 1, {route.host: 1}
        index = 1
        if self.policy is _PREDICTIVE:
            count = min(kind.count, LOOK_AHEAD)
            views: dict[str, HostView] = {view.name: view for view in snapshot.hosts}
            index, more = spread(route.costs, views, Averages(snapshot), lambda costs: self._may(costs, model), count)
        kind.ahead = more
        add(more, ahead)
        kind.over = index >= count
        kind.passed = index - 1

    def _full(self, request: InferenceRequest, why: str, now: float) -> QueueFull:
        error = QueueFull(why)
        error.place = 1 + sum(
            [len(shares) for priority, shares in self._shares.items() if priority <= request.priority]
        )
        error.wait_seconds = seconds_behind(error.place, request.model, self._fleet.snapshot(now))
        error.retry_after = RETRY_AFTER_SECONDS if error.wait_seconds is None else error.wait_seconds
        return error

    # -- deadlines -------------------------------------------------------------------------------------------------------------

    def _is_in_time(self, newcomer: Waiter, now: float) -> bool:
        """Whether one who has just come will make it, as far as can be told; who will not is refused."""
        told = self._foreseen(self._turns(), now, newcomer)[-1][1]
        wait, seconds = told.wait_seconds, told.first_token_seconds
        if wait is None or seconds is None:
            self._certain = min(self._certain, newcomer.due)
            return True
        newcomer.least = seconds - wait
        if now + seconds > newcomer.due:
            self._refuse(newcomer, unmet(newcomer.due - now, seconds, wait, told.place))
            return False
        self._certain = min(self._certain, newcomer.due - newcomer.least)
        return True

    def _expire(self, now: float) -> None:
        """Refuse those whose deadline is out of reach for certain: it would be if a slot were free now."""
        self._certain = NEVER
        snapshot = self._fleet.snapshot(now)
        for waiter in self.waiting():
            if now + waiter.least > waiter.due:
                route = self._choose(waiter.request, snapshot, waiter.tried, {})
                waiter.least = least_seconds(route) if isinstance(route, Route) else 0.0
                if now + waiter.least > waiter.due:
                    self._refuse(waiter, unmet(waiter.due - now, waiter.least, 0.0, None))
                    continue
            self._certain = min(self._certain, waiter.due - waiter.least)

    # -- one decision ----------------------------------------------------------------------------------------------------------

    def _choose(
        self, request: InferenceRequest, snapshot: FleetSnapshot, tried: AbstractSet[str], ahead: Mapping[str, int]
    ) -> Route | Unroutable:
        return choose(request, snapshot, self._rng, tried, ahead, self.policy)

    def _may(self, costs: Costs, model: str) -> bool:
        """Whether a host takes one more request for ``model`` now. One load at a time: Ollama would let the second wait where nobody can take it back.

        Who waits for a host with a free slot waits for a load to end, and keeps the slot from nobody.
        """
        if self._fleet.is_full(costs.host, model):
            return False
        return costs.load_time == 0.0 or not self._fleet.is_loading(costs.host)

    def _let_in(self, waiter: Waiter, route: Route, now: float) -> None:
        eldest = waiter.seq == next(iter(self._waiters))
        grant = self._leased(waiter.request, route, now)
        there = waiter.deliver(grant)
        if there:
            self._younger = 0 if eldest else self._younger + 1
            self._shares[waiter.request.priority].served(waiter.party, route.costs[0].held, waiter.request.share)
        self._leave(waiter)
        if not there:
            self._fleet.release(grant.lease, now)

    def _refuse(self, waiter: Waiter, verdict: Unroutable | DeadlineUnmet) -> None:
        self._leave(waiter)
        waiter.deliver(verdict)

    def _leased(self, request: InferenceRequest, route: Route, now: float) -> Grant:
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

    def _is_settled(self, now: float) -> bool:
        """Whether nothing has changed since ``assign`` looked at everybody; time alone may end an ejection."""
        self._fleet.snapshot(now)
        return self._settled == self._fleet.version

    def _enter(self, waiter: Waiter) -> Kind:
        self._waiters[waiter.seq] = waiter
        kind = self._kinds.get(waiter.kind)
        if kind is None:
            kind = self._kinds[waiter.kind] = Kind()
        kind.count += 1
        self._shares[waiter.request.priority].come(waiter.party)
        return kind

    def _leave(self, waiter: Waiter) -> None:
        del self._waiters[waiter.seq]
        kind = self._kinds[waiter.kind]
        kind.count -= 1
        if not kind.count:
            del self._kinds[waiter.kind]
        self._shares[waiter.request.priority].left(waiter.party)
