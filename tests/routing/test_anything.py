"""The waiting room, whatever happens: nobody is forgotten or served twice, and priorities, shares, bounds and deadlines hold."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.dialects.request import Priority
from gateway.errors import DeadlineUnmet, QueueFull
from gateway.fleet.health import BreakerPolicy, Event
from gateway.fleet.host import Lease
from gateway.fleet.registry import Fleet
from gateway.record import Route
from gateway.routing.admission import ELDEST_EVERY, Admission, Grant
from gateway.routing.policy import Unroutable, choose
from gateway.routing.waiting import NEVER, Waiter
from tests.builders import OTHER, TEXT
from tests.fleet.builders import host, observation, told
from tests.profiles import MACHINE, PROPERTY
from tests.routing.room import Client, First, Room

CONTEXT = (("num_ctx", 8192),)
MINE = 4  # of one principal
LIMIT = 6
names = st.sampled_from(["a", "b", "c"])
wanted = st.sampled_from([TEXT, TEXT, OTHER])
options = st.sampled_from([(), (), CONTEXT])
held = st.lists(st.sampled_from([TEXT, OTHER]), unique=True)


class Anything(RuleBasedStateMachine):
    """Requests come, are granted, end, leave or fall silent; hosts are polled, fail, come back; time passes."""

    @initialize(
        slots=st.lists(st.integers(1, 2), min_size=1, max_size=3),
        service=st.sampled_from([None, 1.0, 4.0]),
        crowd=st.lists(st.tuples(wanted, options), max_size=8),
    )
    def start(self, slots: list[int], service: float | None, crowd: list[tuple[str, Any]]) -> None:
        """One to three hosts that hold nothing yet, and a crowd before them."""
        self.now = 0.0
        self.clients: list[Client] = []
        self.running: list[Client] = []
        self.fresh: list[Client] = []
        self.looked = False
        hosts = [host(name, count) for name, count in zip("abc", slots, strict=False)]
        self.fleet = Fleet(hosts, BreakerPolicy(failures=2, eject_seconds=8.0))
        self.admission = Admission(self.fleet, LIMIT, First(), per_principal=MINE)
        for one in hosts:
            self.fleet.observe(one.name, observation(0.0))
            if service is not None:
                lease = self.fleet.lease(one.name, TEXT, (), 0.0, cold=True)
                self.fleet.learn(lease, service, told(6.0))
                self.fleet.release(lease)
        for model, runner_options in crowd:
            self.come(model, runner_options, "")

    def name(self, name: str) -> str:
        """A host that exists."""
        hosts = [one.name for one in self.fleet.hosts]
        return name if name in hosts else hosts[0]

    @property
    def waiting(self) -> list[Client]:
        """Who is in the room."""
        return [client for client in self.clients if client.waiter in self.admission.waiting()]

    def took(self) -> None:
        """Notice who was granted a slot, and who was there then."""
        self.fresh = [
            client
            for client in self.clients
            if client not in self.running and client.verdicts and isinstance(client.verdicts[0], Grant)
        ]
        self.running += self.fresh
        self.looked = False

    def overtaken(self) -> list[tuple[Client, Client]]:
        """Who waited and was let in last, just now, and each who wants the same and waits on."""
        last = [client for client in self.fresh if client.grant.lease.number == self.fleet.leases_granted]
        return [
            (one, other)
            for one in last
            for other in self.waiting
            if one.waiter is not None and other.there and other.kind == one.kind and other is not self.clients[-1]
        ]

    @rule(
        model=wanted,
        runner_options=options,
        tried=st.sampled_from(["", "", "", "a", "b"]),
        priority=st.sampled_from([Priority.NORMAL, *Priority]),
        who=st.sampled_from(["me", "you"]),
        patience=st.sampled_from([NEVER, NEVER, 5.0, 12.0, 20.0]),
    )
    def come(
        self,
        model: str,
        runner_options: Any,
        tried: str,
        priority: Priority = Priority.NORMAL,
        who: str = "me",
        patience: float = NEVER,
    ) -> None:
        """A request comes, perhaps one that has not much time."""
        client = Client(model, tried, runner_options=runner_options, priority=priority, client=who)
        client.due = self.now + patience
        verdict = self.admission.grant(client.request, self.now, client.tried, client.due)
        mine = [one for one in self.waiting if one.request.client == who]
        if verdict is not None:
            self.clients.append(client)
            client.deliver(verdict)
        elif len(self.admission) >= LIMIT or len(mine) >= MINE:
            with pytest.raises(QueueFull) as caught:
                self.join(client)
            assert 1 <= (caught.value.place or 0) <= len(self.admission) + 1
        else:
            self.clients.append(client)
            client.waiter = self.join(client)
        self.took()

    def join(self, client: Client) -> Waiter:
        """Enter the waiting room."""
        return self.admission.join(client.request, self.now, client.deliver, client.tried, client.due)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answered=st.booleans(), twice=st.booleans())
    def end(self, data: st.DataObject, answered: bool, twice: bool) -> None:
        """A request that has a slot is done, with or without an answer."""
        client = data.draw(st.sampled_from(self.running))
        lease: Lease = client.grant.lease
        if answered:
            self.admission.answered(lease, client.request.model, self.now)
            self.took()
        self.running.remove(client)
        self.clients.remove(client)
        self.admission.release(lease, self.now)
        if twice:
            self.admission.release(lease, self.now)
        self.took()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), silent=st.booleans())
    def leave(self, data: st.DataObject, silent: bool) -> None:
        """A request that waits leaves, or is about to and takes no verdict any more."""
        client = data.draw(st.sampled_from(self.waiting))
        client.there = False
        if not silent:
            assert client.waiter is not None
            self.admission.withdraw(client.waiter, self.now)
        self.took()

    @rule(name=names, has=held, holds=held)
    def poll(self, name: str, has: list[str], holds: list[str]) -> None:
        """A poll comes in."""
        self.fleet.observe(self.name(name), observation(self.now, has or [TEXT, OTHER], holds))
        self.change()

    @rule(name=names, event=st.sampled_from([Event.POLL_FAILED, Event.UNREACHABLE, Event.ATTEMPT_FAILED]))
    def fail(self, name: str, event: Event) -> None:
        """A host fails."""
        self.fleet.note(self.name(name), event, self.now, "failed")
        self.change()

    @rule(name=names, seconds=st.sampled_from([0.5, 4.0, 30.0]))
    def learn(self, name: str, seconds: float) -> None:
        """An answer showed how long one takes here."""
        lease = Lease(0, self.name(name), None, cold=False, since=0.0)
        self.fleet.learn(lease, seconds, told())
        self.change()

    @rule(seconds=st.sampled_from([0.25, 2.0, 10.0, 15.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and something small happens."""
        self.now += seconds
        self.change()

    def change(self) -> None:
        """What every change of the fleet is followed by."""
        self.admission.assign(self.now)
        self.took()
        self.looked = True

    # -- what always holds ------------------------------------------------------------------------------------------------------------

    @invariant()
    def no_host_has_more_leases_than_slots(self) -> None:
        """And every lease is somebody's."""
        for view in self.fleet.snapshot(self.now).hosts:
            mine = [client for client in self.running if client.grant.lease.host == view.name]
            assert view.leases == len(mine) <= view.host.slots
        assert self.fleet.lease_count == len(self.running)

    @invariant()
    def everyone_is_somewhere_once(self) -> None:
        """Each request waits, or has one verdict, or has left."""
        waiting = self.waiting
        assert len(waiting) == len(self.admission) == len(self.admission.waiting()) <= LIMIT
        for client in self.clients:
            assert len(client.verdicts) <= 1
            assert (client in waiting) + len(client.verdicts) == 1 or not client.there

    @invariant()
    def nobody_has_more_than_may_wait(self) -> None:
        """Whatever the priorities of its requests."""
        for who in ("me", "you"):
            assert sum(client.request.client == who for client in self.waiting) <= MINE

    @invariant()
    def deadlines_are_kept(self) -> None:
        """Nobody waits longer than they would, or is let in for what would be late; who is refused had too little time indeed."""
        for client in self.waiting:
            assert self.now <= client.due
        for client in self.running:
            lease, route = client.grant.lease, client.grant.route
            assert lease.since + route.predicted_seconds <= client.due
        for client in self.clients:
            if client.verdicts and isinstance(error := client.verdicts[0], DeadlineUnmet):
                assert client.due < NEVER
                assert error.retry_after is None or error.retry_after > 0

    @invariant()
    def the_forecast_is_of_all_who_wait(self) -> None:
        """In the order of their turns: priorities first, but for the eldest when it is its turn."""
        seen = self.admission.outlook(self.now)
        assert [each.place for _, each in seen] == list(range(1, len(self.admission) + 1))
        assert {waiter.seq for waiter, _ in seen} == {waiter.seq for waiter in self.admission.waiting()}
        priorities = [waiter.request.priority for waiter, _ in seen]
        assert priorities[1:] == sorted(priorities[1:])
        assert all(each.wait_seconds is None or each.wait_seconds >= 0.0 for _, each in seen)

    @invariant()
    def priorities_hold(self) -> None:
        """Of two alike the one of less priority is served first only by a host that is dearer than what the other waits for, or because it waited longest."""
        for lower, higher in self.overtaken():
            eldest = all(lower.waiter.seq < waiter.seq for waiter in self.admission.waiting())  # type: ignore[union-attr]
            route = self.route(higher)
            if higher.request.priority < lower.request.priority and not eldest and isinstance(route, Route):
                assert route.costs[0].total <= lower.grant.route.costs[0].total + 1e-9

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """While somebody waits, somebody runs, whose end will be noticed."""
        assert not len(self.admission) or self.fleet.lease_count

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        """The best host of whoever is next is taken, or loads something before it can load what they want; or they need a load, and let others go first.

        So it is when all were looked at. A slot that somebody takes may make another host the cheapest for who waits: the next look finds it.
        """
        if not self.looked:
            return
        order = [waiter for waiter, _ in self.admission.outlook(self.now)]
        for client in self.waiting:
            route = self.route(client)
            free = [view for view in self.fleet.snapshot(self.now).hosts if view.leases < view.slots]
            if isinstance(route, Unroutable):
                model = client.request.model
                assert not [view for view in free if view.available is None or model in view.available], "not refused"
            elif (
                client.there and client.waiter is order[0] and not self.fleet.is_full(route.host, client.request.model)
            ):
                costs = route.costs[0]
                blocked = costs.load_time and self.fleet.view(route.host, self.now).loading
                stands_back = costs.load_time + costs.harm > 0 and len(order) > 1
                assert blocked or stands_back, f"{client.request.model} could run on {route.host}"

    @invariant()
    def nobody_is_overtaken_to_their_harm(self) -> None:
        """Of two alike who came later is served first only by a host that is dearer than what the other waits for."""
        for later, earlier in self.overtaken():
            if earlier.line == later.line and self.clients.index(earlier) < self.clients.index(later):
                assert len(self.fleet.hosts) > 1
                route = self.route(earlier)
                if isinstance(route, Route):
                    assert route.costs[0].total <= later.grant.route.costs[0].total + 1e-9

    def route(self, client: Client) -> Route | Unroutable:
        """Where it would go if nobody else waited."""
        return choose(client.request, self.fleet.snapshot(self.now), First(), client.tried)

    def teardown(self) -> None:
        """In the end, everyone who waits gets their turn."""
        if not hasattr(self, "running"):
            return
        while self.running:
            client = self.running.pop(0)
            self.clients.remove(client)
            self.now += 1.0
            self.admission.release(client.grant.lease, self.now)
            self.took()
        assert len(self.admission) == self.fleet.lease_count == 0


TestAnything = Anything.TestCase
TestAnything.settings = MACHINE


sizes = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20_000)), min_size=20, max_size=60)


@given(crowd=sizes)
@PROPERTY
def test_shares_hold(crowd: list[tuple[str, int]]) -> None:
    """While two wait, the seconds that they got differ by one request of each, and by what went to whoever had waited longest."""
    room = Room(limit=100)
    running = room.come(Client(client="before"))
    clients = [room.come(Client(client=who, prompt_tokens=tokens)) for who, tokens in crowd]
    got: dict[str, float] = dict.fromkeys("abc", 0.0)
    most = (
        max([tokens for _, tokens in crowd]) / 500.0 + 30.0
    )  # prompts are read at 500 tokens/s; answers take less than 30 s
    waiting = {who: sum(client.request.client == who for client in clients) for who in got}
    for served in range(len(clients)):
        room.end(running)
        (running,) = [client for client in clients if client.verdicts and client is not running and client.there]
        running.there = False  # it was looked at
        who = running.request.client
        got[who] += running.grant.route.costs[0].held
        waiting[who] -= 1
        both = [got[name] for name, left in waiting.items() if left]
        assert max(both, default=0.0) - min(both, default=0.0) <= most * (2 + served // ELDEST_EVERY)
