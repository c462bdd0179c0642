"""The waiting room: who is granted a slot, who waits, in which order, and that nobody is forgotten or counted twice."""

import msgspec
import pytest

from gateway.dialects.request import Priority
from gateway.errors import QueueFull
from gateway.fleet.health import Event
from gateway.record import Route
from gateway.routing.admission import ELDEST_EVERY, LOOK_AHEAD, RETRY_AFTER_SECONDS
from gateway.routing.policy import Unroutable, choose
from tests.builders import OTHER, TEXT
from tests.fleet.builders import SIZE, host, observation, told
from tests.routing.room import Client, First, Room, granted

CONTEXT = (("num_ctx", 8192),)


# -- taking what is there -------------------------------------------------------------------------------------------------------------


def test_a_free_slot_is_taken_at_once() -> None:
    """Decision and lease are one step."""
    room = Room()
    client = room.come(Client())
    assert client.grant.route.host == client.grant.lease.host == "gpu1"
    assert (room.fleet.lease_count, len(room.admission), client.grant.lease.cold) == (1, 0, False)


def test_one_load_at_a_time() -> None:
    """Who needs a load, of the same model or another, waits here until the host has loaded what it loads; what is loaded goes on."""
    room = Room(host(slots=3, vram_bytes=2 * SIZE), holds=(OTHER,))
    first, second, third = (room.come(Client(model)) for model in (TEXT, TEXT, OTHER))
    assert first.grant.lease.cold
    assert (second.verdicts, third.grant.lease.cold) == ([], False)
    assert room.fleet.view("gpu1", 0.0).loading == {first.grant.lease.digest: 0.0}
    room.admission.answered(first.grant.lease, TEXT, 2.0)
    assert not second.grant.lease.cold


def test_a_load_takes_what_must_make_room_for_it() -> None:
    """Who wants that waits for both loads; a poll that shows it still changes nothing while it is in use, and after the first one ended only a newer one tells."""
    room = Room(host(slots=4, vram_bytes=SIZE), holds=(OTHER,))
    using, loads, wants = (room.come(Client(model)) for model in (OTHER, TEXT, OTHER))
    assert (using.grant.lease.cold, loads.grant.lease.cold, wants.verdicts) == (False, True, [])
    (_, outlook), *_ = room.admission.outlook(0.0)
    assert outlook.waits_for == "load"
    room.fleet.observe("gpu1", observation(20.0, holds=[OTHER]))
    room.admission.assign(20.0)
    assert wants.verdicts == []
    room.end(using, 21.0)
    room.admission.answered(loads.grant.lease, TEXT, 22.0)
    assert wants.grant.lease.cold
    room.end(wants, 23.0)
    room.fleet.observe("gpu1", msgspec.structs.replace(observation(24.0, holds=[OTHER]), began=21.5))
    assert room.come(Client(OTHER), 24.0).grant.lease.cold


def test_an_unknown_model_is_refused_at_once() -> None:
    """Nobody waits for what will not come."""
    client = Room().come(Client("nope:latest"))
    assert [type(verdict) for verdict in client.verdicts] == [Unroutable]


def test_a_burst_spreads() -> None:
    """No stampede within a poll interval: each lease counts at once."""
    room = Room(*(host(name, slots=2) for name in "abc"))
    hosts = [client.grant.route.host for client in room.many(6)]
    assert sorted(hosts) == sorted("aabbcc")


def test_a_cold_fleet_is_used() -> None:
    """Many models at once go to as many hosts; and of two that are asked for in turn, each finds a host of its own, though only one was ever measured."""
    names = ("m1", "m2", "m3")
    room = Room(*map(host, "abc"), holds=())
    for name in "abc":
        room.fleet.observe(name, observation(0.0, has=names))
    clients = [room.come(Client(f"{name}:latest")) for name in names]
    assert sorted(client.grant.route.host for client in clients) == ["a", "b", "c"]
    room = Room(*map(host, "ab"), holds=())
    for number in range(6):
        now = 40.0 * number
        client = room.come(Client((TEXT, OTHER)[number % 2]), now)
        lease = client.grant.lease
        room.admission.answered(lease, client.request.model, now + 20.0)
        room.fleet.learn(lease, 22.0, told(20.0 if lease.cold else 0.0, 20.0, 500.0))
        room.end(client, now + 22.0)
        assert lease.cold is (number < 2)
    held = [list(view.loaded) for view in room.fleet.snapshot(300.0).hosts]
    assert sorted(map(len, held)) == [1, 1]


# -- waiting --------------------------------------------------------------------------------------------------------------------------


def test_first_come_first_served() -> None:
    """A slot that is freed goes to whoever has waited longest."""
    room = Room()
    clients = room.many(4)
    for index in range(3):
        assert granted(clients) == [True] * (index + 1) + [False] * (3 - index)
        room.end(clients[index])
    assert granted(clients) == [True] * 4
    assert [client.grant.lease.number for client in clients] == [1, 2, 3, 4]


def test_a_lane_does_not_hold_up_another() -> None:
    """Who waits for one host does not keep others from a free one."""
    room = Room(host("a"), host("b"))
    room.fleet.observe("a", observation(0.0, has=[TEXT], holds=[TEXT]))
    room.fleet.observe("b", observation(0.0, has=[OTHER], holds=[OTHER]))
    room.many(3)
    other = room.come(Client(OTHER))
    assert other.grant.route.host == "b"
    assert len(room.admission) == 2


def test_whoever_waits_is_bound_late() -> None:
    """To the host that is cheapest when a slot is free, not to the one that was when it came."""
    room = Room(host("a"), host("b"))
    first, second, third = room.many(3)
    assert {first.grant.route.host, second.grant.route.host} == {"a", "b"}
    room.end(second)
    assert third.grant.route.host == second.grant.route.host


def test_waiting_for_a_warm_host_may_be_cheaper() -> None:
    """A free host where the model would have to be loaded is left free, until too many wait."""
    room = Room(host("warm"), host("cold"))
    room.fleet.observe("cold", observation(0.0))
    lease = room.fleet.lease("warm", TEXT, (), 0.0, cold=False)
    room.fleet.learn(lease, 2.0, told())
    clients = room.many(2)
    assert granted(clients) == [False, True], "one waits for 2 s; for the second, 4 s are more than 3 s of loading"
    assert clients[1].grant.route.host == "cold"
    room.admission.release(lease, 1.0)
    assert clients[0].grant.route.host == "warm"


def test_a_reload_under_way_is_no_warm_runner() -> None:
    """Who loads the model anew with other options makes nobody believe that it is loaded so already."""
    room = Room(host("warm"), host("other", slots=2))
    for name, runner_options in (("warm", CONTEXT), ("other", ())):
        loading = room.fleet.lease(name, TEXT, runner_options, 0.0, cold=True)
        room.fleet.learn(loading, 4.0, told(6.0))
        room.fleet.answered(loading, TEXT, 0.0)
        room.fleet.release(loading)
        lease = room.fleet.lease(name, TEXT, runner_options, 0.0, cold=False)
        if name == "other":
            room.fleet.release(lease)
    first, second, third = room.many(3, runner_options=CONTEXT)
    assert (second.grant.route.host, second.grant.lease.cold) == ("other", True), "8 s are more than 6 s and the harm"
    assert first.verdicts == third.verdicts == []
    fourth = choose(first.request, room.fleet.snapshot(0.0), First())
    assert isinstance(fourth, Route)
    assert fourth.host == "warm", "4 s for a slot there are less than the 6 s that the other still loads"


def test_a_poll_lets_in_who_waits() -> None:
    """When a host comes back, nobody has to come again."""
    room = Room(host("a"), host("b"))
    room.fleet.note("b", Event.UNREACHABLE, 0.0)
    first, second = room.many(2)
    assert granted([first, second]) == [True, False]
    room.fleet.observe("b", observation(1.0, holds=[TEXT]))
    room.admission.assign(1.0)
    assert second.grant.route.host == "b"


def test_who_waits_for_what_is_gone_is_refused() -> None:
    """When the only host that had the model loses it, the verdict comes with the next change."""
    room = Room(host(slots=2))
    (running, busy), waiting = room.many(2), room.come(Client())
    room.fleet.forget_model("gpu1", TEXT)
    room.end(running)
    assert isinstance(waiting.verdicts[0], Unroutable)
    assert len(room.admission) == 0
    room.end(busy)


def order(room: Room, clients: list[Client]) -> list[int]:
    """End one after the other; in which order they were let in."""
    while running := [client for client in clients if client.verdicts and client.waiter is not client]:
        for client in running:
            client.waiter = client  # type: ignore[assignment]  # done
            if client.grant.lease.cold:
                room.fleet.answered(client.grant.lease, client.request.model, 0.0)
            room.end(client)
    return sorted(range(len(clients)), key=lambda index: clients[index].grant.lease.number)


def test_who_waits_for_a_load_keeps_no_slot() -> None:
    """From those who want what is loaded beside it."""
    room = Room(host(slots=2), holds=())
    room.many(2)
    other = room.come(Client(OTHER))
    assert other.verdicts == []
    room.fleet.observe("gpu1", observation(1.0, holds=[OTHER]))
    room.admission.assign(1.0)
    assert not other.grant.lease.cold


def test_those_who_want_what_is_loaded_go_together() -> None:
    """Who needs a load stands back: one load, not one for each."""
    room = Room()
    clients = [room.come(Client(model)) for model in (TEXT, OTHER, TEXT, OTHER, TEXT)]
    assert order(room, clients) == [0, 2, 4, 1, 3]


def test_nobody_starves() -> None:
    """Of so many grants one goes to whoever has waited longest, though they need a load, or are of no priority."""
    room = Room(limit=1000)
    holder = room.come(Client())
    cold = room.come(Client(OTHER))
    slow = room.come(Client(priority=Priority.BACKGROUND))
    clients = [holder, cold, slow, *room.many(3 * ELDEST_EVERY)]
    places = order(room, clients)
    assert places.index(1) == ELDEST_EVERY + 1
    assert places.index(2) <= 2 * (ELDEST_EVERY + 1) + 1


def test_principals_share() -> None:
    """However many requests one sends, another's come in turn with them."""
    room = Room()
    greedy = room.many(20, client="greedy")
    modest = room.many(5, client="modest")
    places = order(room, [*greedy, *modest])
    assert [place >= 20 for place in places[1:11]] == [False, True] * 5


def test_keys_share_by_their_weights() -> None:
    """All of one key together, from wherever they come; who has no key shares by address."""
    room = Room()
    heavy = [room.come(Client(principal="ann", client=f"10.0.0.{number}", share=3.0)) for number in range(20)]
    light = room.many(20, principal="bob", client="10.0.0.1", share=1.0)
    nobody = room.many(20, client="10.0.0.1")
    places = order(room, [*heavy, *light, *nobody])[1:26]
    assert sum(place < 20 for place in places) == pytest.approx(15, abs=1)
    assert sum(20 <= place < 40 for place in places) == pytest.approx(5, abs=1)


@pytest.mark.parametrize("first", [Priority.INTERACTIVE, Priority.NORMAL])
def test_priorities(first: Priority) -> None:
    """Who has one goes before those who have less, whoever they are and whenever they came."""
    room = Room()
    holder = room.come(Client(client="b"))
    low = room.many(3, priority=Priority.BACKGROUND, client="a")
    high = room.many(3, priority=first, client="b")
    assert order(room, [holder, *low, *high]) == [0, 4, 5, 6, 1, 2, 3]


def test_what_runs_in_the_background_is_last() -> None:
    """It waits until nobody else does, whatever came first; a free slot that nobody waits for it takes at once."""
    room = Room()
    holder = room.come(Client())
    titles = [room.come(Client(priority=Priority.BACKGROUND)) for _ in range(2)]
    later = [room.come(Client()) for _ in range(2)]
    for one in (holder, *later, titles[0]):
        room.admission.release(one.grant.lease, 1.0)
    assert titles[1].verdicts
    room.admission.release(titles[1].grant.lease, 1.0)
    assert room.come(Client(priority=Priority.BACKGROUND)).verdicts


def test_many_are_let_in_at_once() -> None:
    """A host that comes back with several slots takes as many."""
    room = Room(host("a"), host("b", slots=3))
    room.fleet.note("b", Event.UNREACHABLE, 0.0)
    clients = room.many(5)
    room.fleet.observe("b", observation(1.0, holds=[TEXT]))
    room.admission.assign(1.0)
    assert granted(clients) == [True] * 4 + [False]


def test_a_host_that_was_tried_is_not_waited_for() -> None:
    """A second attempt waits for another host."""
    room = Room(host("a"), host("b"))
    first, second = room.many(2)
    again = room.come(Client(tried=first.grant.route.host))
    room.end(first)
    assert again.verdicts == []
    room.end(second)
    assert again.grant.route.host == second.grant.route.host


def test_a_newcomer_overtakes_nobody() -> None:
    """A host that may be used again since a moment goes to whoever waits, not to whoever comes just then."""
    room = Room(host("a"), host("b"))
    room.fleet.note("b", Event.ATTEMPT_FAILED, 0.0, "500")
    room.come(Client())
    waiting = room.come(Client())
    newcomer = room.come(Client(), now=60.0)
    assert granted([waiting, newcomer]) == [True, False]


# -- leaving --------------------------------------------------------------------------------------------------------------------------


def test_who_leaves_is_skipped() -> None:
    """A waiter that withdrew gets nothing, and withdrawing twice is nothing."""
    room = Room()
    running, gone, next_ = room.many(3)
    assert gone.waiter is not None
    room.admission.withdraw(gone.waiter, 0.0)
    room.admission.withdraw(gone.waiter, 0.0)
    assert len(room.admission) == 1
    room.end(running)
    assert (gone.verdicts, granted([next_])) == ([], [True])


def test_who_is_not_there_to_take_it_costs_nothing() -> None:
    """A grant that nobody takes goes to the next."""
    room = Room()
    running, deaf, next_ = room.many(3)
    deaf.there = False
    room.end(running)
    assert (deaf.verdicts, granted([next_]), room.fleet.lease_count) == ([], [True], 1)


def test_leaving_may_let_in_another() -> None:
    """Who stood before others made hosts look busy."""
    room = Room(host("warm"), host("cold"))
    room.fleet.observe("cold", observation(0.0))
    lease = room.fleet.lease("warm", TEXT, (), 0.0, cold=False)
    room.fleet.learn(lease, 2.0, told())
    first = room.come(Client())
    assert first.waiter is not None
    room.admission.withdraw(first.waiter, 0.0)
    second = room.come(Client())
    assert second.verdicts == []
    room.admission.release(lease, 0.0)
    assert second.grant.route.host == "warm"


def test_a_lease_is_given_back_once() -> None:
    """Releasing twice frees one slot."""
    room = Room()
    first, second, third = room.many(3)
    room.end(first)
    room.end(first)
    assert granted([second, third]) == [True, False]


# -- bounds ---------------------------------------------------------------------------------------------------------------------------


def test_the_queue_is_bounded() -> None:
    """Who does not fit is told when to come again; nobody else notices."""
    room = Room(limit=2)
    clients = room.many(3)
    with pytest.raises(QueueFull, match="2 requests wait") as caught:
        room.come(Client())
    assert (caught.value.status, caught.value.retry_after) == (503, pytest.approx(3 * 10.0))
    assert len(room.admission) == 2
    room.end(clients[0])
    assert granted([*clients, room.come(Client())]) == [True, True, False, False]


def test_who_does_not_fit_is_told_what_it_would_have_been() -> None:
    """Its place, behind those of its priority and above at most, and the wait there at the hosts' pace."""
    room = Room(host(slots=2), limit=5)
    room.many(2)
    for priority in (Priority.BACKGROUND, Priority.NORMAL, Priority.INTERACTIVE, Priority.NORMAL, Priority.NORMAL):
        room.come(Client(priority=priority))
    for priority, place in zip(Priority, (2, 5, 6), strict=True):
        with pytest.raises(QueueFull) as caught:
            room.come(Client(priority=priority))
        assert (caught.value.place, caught.value.wait_seconds) == (place, pytest.approx(place * 10.0 / 2))
        assert caught.value.retry_after == caught.value.wait_seconds


def test_who_does_not_fit_where_nobody_knows_the_wait() -> None:
    """No host that has told its models has this one: come again in a few seconds."""
    room, client = Room(limit=0), Client("unknown:latest")
    with pytest.raises(QueueFull) as caught:
        room.admission.join(client.request, 0.0, client.deliver)
    assert (caught.value.wait_seconds, caught.value.retry_after) == (None, RETRY_AFTER_SECONDS)


def test_a_principal_is_bounded() -> None:
    """Whatever the priorities of its requests; others come in, and so does it when one of them has left or is served."""
    room = Room(per_principal=2)
    holder = room.come(Client(client="greedy"))
    first, second = (room.come(Client(client="greedy", priority=priority)) for priority in (1, 2))
    with pytest.raises(QueueFull, match="2 requests of yours wait"):
        room.come(Client(client="greedy", priority=0))
    assert room.come(Client(client="modest")).verdicts == []
    room.end(holder)
    assert granted([first, second, room.come(Client(client="greedy"))]) == [True, False, False]
    assert second.waiter is not None
    room.admission.withdraw(second.waiter, 0.0)
    room.come(Client(client="greedy"))
    with pytest.raises(QueueFull):
        room.come(Client(client="greedy"))


def test_everyone_who_waits_is_known() -> None:
    """In order of arrival, whatever the lane."""
    room = Room()
    clients = [room.come(Client(model)) for model in (TEXT, TEXT, OTHER, TEXT)]
    assert [waiter.request for waiter in room.admission.waiting()] == [client.request for client in clients[1:]]


def places(room: Room) -> dict[str, int]:
    """The ids of all that wait → their place."""
    return {waiter.request.id: told.place for waiter, told in room.admission.outlook(0.0)}


def test_places() -> None:
    """In the order in which they are looked at: what runs in the background behind all others. Who has a slot waits for nothing."""
    room = Room()
    holder, first, title, second = [
        room.come(Client(priority=Priority.BACKGROUND if number == 2 else Priority.NORMAL)) for number in range(4)
    ]
    ids = [client.request.id for client in (first, second, title)]
    assert places(room) == {id_: place for place, id_ in enumerate(ids, 1)}
    room.end(holder)
    assert places(room) == {second.request.id: 1, title.request.id: 2}


def test_a_long_lane_starves_nobody() -> None:
    """However many wait for one model, the first who wait for another get their slot."""
    room = Room(host("a"), host("b"))
    room.fleet.observe("a", observation(0.0, has=[TEXT], holds=[TEXT]))
    room.fleet.observe("b", observation(0.0, has=[OTHER], holds=[OTHER]))
    first = room.come(Client(OTHER))
    room.many(3 * LOOK_AHEAD)
    other = room.come(Client(OTHER))
    room.end(first)
    assert other.grant.route.host == "b"


def test_a_long_lane_empties_in_order() -> None:
    """Looking only so far ahead changes no order."""
    room = Room()
    clients = room.many(2 * LOOK_AHEAD)
    for index, client in enumerate(clients):
        assert granted(clients) == [True] * (index + 1) + [False] * (len(clients) - index - 1)
        room.end(client)


class Looked(frozenset[str]):
    """The hosts that a request was tried on: none. Counts how often a decision asks about one."""

    times = 0

    def __contains__(self, name: object) -> bool:
        self.times += 1
        return False


LANES, HOSTS = 300, 2


@pytest.fixture
def looked() -> Looked:
    """What all who wait in ``lanes`` were tried on."""
    return Looked()


def different(number: int, looked: Looked) -> Client:
    """A client whose request stands in a lane of its own."""
    client = Client(runner_options=(("num_ctx", 1024 + number),))
    client.tried = looked
    return client


@pytest.fixture
def lanes(looked: Looked) -> Room:
    """Many wait in as many lanes for a host, while another, which is of no use to them, has a free slot."""
    room = Room(host("a"), host("b"), limit=LANES)
    room.fleet.observe("b", observation(0.0, has=[OTHER], holds=[OTHER]))
    room.come(Client())
    for number in range(LANES - 1):
        room.come(different(number, looked))
    assert len(room.admission) == LANES - 1
    return room


def test_coming_costs_the_same_behind_many_lanes(lanes: Room, looked: Looked) -> None:
    """Who comes and has to wait is decided on, and nobody else: nothing changed for them."""
    assert LANES <= looked.times <= LANES * HOSTS * 2, "those who are there came at the same price"
    before = looked.times
    client = lanes.come(different(LANES, looked))
    assert (client.verdicts, len(lanes.admission)) == ([], LANES)
    assert HOSTS <= looked.times - before <= 2 * HOSTS


def test_refusing_costs_the_same_behind_many_lanes(lanes: Room, looked: Looked) -> None:
    """Whether the queue is full or the model unknown."""
    lanes.come(different(LANES, looked))
    before = looked.times
    for number in range(10):
        with pytest.raises(QueueFull):
            lanes.come(different(LANES + number, looked))
    unknown = lanes.come(Client("nope:latest"))
    assert [type(verdict) for verdict in unknown.verdicts] == [Unroutable]
    assert looked.times - before <= 10 * 2 * HOSTS


def test_leaving_costs_nothing_behind_many_lanes(lanes: Room, looked: Looked) -> None:
    """Nobody gains by it: the host they wait for has no free slot more. The next change finds all who are left."""
    clients = [lanes.admission.waiting()[index] for index in (0, 100, 200)]
    before = looked.times
    for waiter in clients:
        lanes.admission.withdraw(waiter, 0.0)
    assert looked.times == before
    lanes.fleet.observe("b", observation(1.0, holds=[TEXT]))
    lanes.admission.assign(1.0)
    assert len(lanes.admission) == LANES - 1 - 3 - 1
