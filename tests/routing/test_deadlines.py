"""Who waits only so long: refused at once where that is foreseen, taken out when it is certain, never given what comes too late."""

import pytest

from gateway.errors import DeadlineUnmet
from gateway.fleet.health import Event
from gateway.routing.admission import Grant
from tests.builders import OTHER, TEXT
from tests.fleet.builders import host, observation, told
from tests.routing.room import Client, Room, granted

SERVICE = 4.0


@pytest.fixture
def room() -> Room:
    """One host with one slot, which is held for 4 s a request."""
    return one_slot(Room())


def one_slot(room: Room) -> Room:
    """Requests take SERVICE on every host, loads 6 s."""
    for one in room.fleet.hosts:
        lease = room.fleet.lease(one.name, TEXT, (), 0.0, cold=True)
        room.fleet.learn(lease, SERVICE, told(6.0))
        room.fleet.answered(lease, TEXT, 0.0)
        room.fleet.release(lease)
    return room


def unmet(client: Client) -> DeadlineUnmet:
    """The refusal that it got."""
    (verdict,) = client.verdicts
    assert isinstance(verdict, DeadlineUnmet)
    return verdict


def hurried(seconds: float, model: str = TEXT, **more: object) -> Client:
    """Who waits so long and no longer."""
    return Client(model, deadline_seconds=seconds, **more)


def test_who_makes_it_is_let_in(room: Room) -> None:
    """A free slot is theirs, and they wait as long as they say."""
    clients = [room.come(hurried(10.0)) for _ in range(2)]
    assert granted(clients) == [True, False]
    room.end(clients[0], now=4.0)
    assert granted(clients) == [True, True]


def test_who_will_not_make_it_is_refused_at_once(room: Room) -> None:
    """With its place, how long it would have been, and when to come again: as much later as it would have been late."""
    room.many(3)
    error = unmet(room.come(hurried(5.0)))
    assert error.place == 3
    assert error.wait_seconds is not None
    assert error.wait_seconds > 2 * SERVICE
    assert error.retry_after == pytest.approx(error.wait_seconds - 5.0)
    assert "about 1" in error.message
    assert len(room.admission) == 2


def test_a_load_that_takes_too_long(room: Room) -> None:
    """Coming again would not help: no free slot makes it shorter."""
    error = unmet(room.come(hurried(1.0, OTHER)))
    assert (error.retry_after, error.place, room.fleet.lease_count) == (None, None, 0)
    room.come(Client())
    assert unmet(room.come(hurried(1.0, OTHER))).retry_after is None
    assert not len(room.admission)


def test_who_is_before_others_is_not_measured_by_them(room: Room) -> None:
    """Those who wait behind it cost it nothing."""
    room.come(Client())
    room.many(20, priority=2)
    first = room.come(hurried(SERVICE + 6.0, priority=0))
    assert not first.verdicts
    assert unmet(room.come(hurried(SERVICE + 6.0, priority=2))).place == 22


def test_who_cannot_make_it_any_more_is_taken_out(room: Room) -> None:
    """With the next change after it is certain, though no slot is free; the others wait on."""
    running = room.come(Client())
    late, patient = room.come(hurried(9.0)), room.come(Client())
    room.admission.assign(8.9)
    assert not late.verdicts
    room.admission.assign(9.1)
    assert unmet(late).status == 503
    room.end(running, now=9.5)
    assert granted([patient]) == [True]


def test_a_load_makes_it_certain_earlier() -> None:
    """A free slot now would not help who needs a load that takes longer than is left."""
    room = one_slot(Room())
    running = room.come(Client())
    cold = room.come(hurried(15.0, OTHER))
    assert cold.waiter is not None
    least = cold.waiter.least
    assert least > 1.0
    room.admission.assign(15.0 - least - 0.1)
    assert not cold.verdicts
    room.admission.assign(15.0 - least + 0.1)
    assert unmet(cold).retry_after is None
    room.end(running)


def test_a_model_that_was_loaded_meanwhile() -> None:
    """Who needed a load does not any more: what was certain is asked again."""
    room = one_slot(Room(host(slots=1)))
    running = room.come(Client())
    cold = room.come(hurried(15.0, OTHER))
    room.fleet.observe("gpu1", observation(14.0, holds=[TEXT, OTHER]))
    room.admission.assign(14.9)
    assert not cold.verdicts
    room.end(running, now=14.95)
    assert granted([cold]) == [True]


def test_nobody_is_given_what_comes_too_late() -> None:
    """A slot that is free while there is time for it no more goes to the next."""
    room = one_slot(Room(holds=()))
    running = room.come(Client())
    cold, warm = room.come(hurried(15.0, OTHER)), room.come(Client())
    room.end(running, now=14.9)
    assert isinstance(warm.verdicts[0], Grant)
    unmet(cold)


def test_who_waits_for_nobody_is_not_refused() -> None:
    """When no host can be told of, nothing is foretold; the deadline itself is."""
    room = one_slot(Room(host("a"), host("b")))
    held = [room.come(Client()) for _ in range(2)]
    for name in "ab":
        room.fleet.forget_model(name, OTHER)
    room.fleet.note("a", Event.UNREACHABLE, 0.0)
    waiting = room.come(hurried(30.0))
    room.admission.assign(1.0)
    assert not waiting.verdicts
    room.admission.assign(31.0)
    unmet(waiting)
    for client in held:
        room.end(client)


def test_nobody_is_given_a_host_that_is_too_slow() -> None:
    """One that is warm could have made it, had it been free as was foretold; the other needs a load, for which no time is left."""
    room = one_slot(Room(host("warm"), host("cold")))
    room.fleet.observe("cold", observation(0.0))
    leases = {
        name: room.fleet.lease(name, TEXT, (), 0.0, cold=False, seconds=seconds)
        for name, seconds in (("warm", 2.0), ("cold", 300.0))
    }
    waiter, patient = room.come(hurried(10.0)), room.come(Client())
    room.admission.assign(9.0)
    assert not waiter.verdicts
    room.admission.release(leases["cold"], 9.0)
    assert unmet(waiter).retry_after is None
    assert patient.grant.route.host == "cold"
