"""What those who wait can expect."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.outlook import KINDS_MOST, Outlook
from tests.builders import OTHER, TEXT
from tests.fleet.builders import host, observation, told
from tests.profiles import PROPERTY
from tests.routing.room import Client, Room


def outlook(room: Room, now: float = 0.0) -> list[Outlook]:
    """Of all that wait."""
    return [told for _, told in room.admission.outlook(now)]


def busy(*slots: int, service: float = 2.0, holds: tuple[str, ...] = (TEXT,)) -> Room:
    """Hosts whose slots are all taken, for ``service`` seconds each."""
    room = Room(*(host(name, count) for name, count in zip("abc", slots, strict=False)), holds=holds, limit=1000)
    for one in room.fleet.hosts:
        for _ in range(one.slots):
            lease = room.fleet.lease(one.name, TEXT, (), 0.0, cold=False, seconds=service)
        room.fleet.learn(lease, service, told())
    return room


def test_one_after_the_other() -> None:
    """Each waits as long as a lease is held longer than the one before; of two slots, half as long."""
    for slots, step in ((1, 2.0), (2, 1.0)):
        room = busy(slots)
        room.many(3)
        seen = outlook(room)
        assert [(each.place, each.waits_for, each.host) for each in seen] == [(n, "slot", "a") for n in (1, 2, 3)]
        assert [each.wait_seconds for each in seen] == pytest.approx([2.0, 2.0 + step, 2.0 + 2 * step])
        assert all(each.first_token_seconds == each.wait_seconds for each in seen)


def test_they_spread() -> None:
    """Whoever waits longer than another host would take goes there, whatever kind those ahead are of."""
    room = busy(1, 1)
    for model in (TEXT, OTHER, TEXT, TEXT):
        room.come(Client(model))
    assert {each.host for each in outlook(room)} == {"a", "b"}
    waits = [each.wait_seconds or 0.0 for each in outlook(room)]
    assert max(waits) <= 4.0


def test_the_order_is_that_of_turns() -> None:
    """Priorities, then shares."""
    room = busy(1)
    low, high = room.come(Client(priority=2)), room.come(Client(priority=0))
    assert [waiter for waiter, _ in room.admission.outlook(0.0)] == [high.waiter, low.waiter]


def test_what_would_come() -> None:
    """Is told the same as when it comes, and changes nothing; who finds a free slot would not wait, nor who would be refused."""
    room = busy(1, 2)
    for name in ("me", "you", "me"):
        room.come(Client(client=name))
    for more in ({"client": "new"}, {"client": "me"}, {"priority": 0}, {"priority": 2}):
        client = Client(**more)
        before = outlook(room)
        foretold = room.admission.foretell(client.request, 0.0)
        assert outlook(room) == before
        room.come(client)
        assert foretold == next(told for waiter, told in room.admission.outlook(0.0) if waiter is client.waiter)
    assert room.admission.foretell(Client("nope:latest").request, 0.0) is None
    assert Room().admission.foretell(Client().request, 0.0) is None


def test_who_waits_for_a_load() -> None:
    """A slot is free, but the host loads for somebody else."""
    room = Room(host(slots=2), holds=())
    room.come(Client())
    room.come(Client(OTHER))
    (seen,) = outlook(room)
    assert (seen.waits_for, seen.host) == ("load", "gpu1")
    assert seen.wait_seconds
    assert seen.first_token_seconds
    assert seen.first_token_seconds > seen.wait_seconds


def test_nobody_can_take_it() -> None:
    """Nothing is foretold to who waits for what is gone."""
    room = busy(1)
    room.many(1)
    room.fleet.observe("a", observation(0.0, has=[OTHER]))
    assert outlook(room) == [Outlook(1, "host")]


def test_many_kinds() -> None:
    """Not more of them are decided on than can be afforded."""
    room = busy(1)
    for number in range(KINDS_MOST + 3):
        room.come(Client(runner_options=(("num_ctx", 1024 + number),)))
    seen = outlook(room)
    assert [each.place for each in seen] == list(range(1, KINDS_MOST + 4))
    assert [each.wait_seconds is None for each in seen] == [False] * KINDS_MOST + [True] * 3


@given(
    slots=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    service=st.sampled_from([0.5, 2.0, 30.0]),
    crowd=st.lists(st.sampled_from([TEXT, TEXT, OTHER]), max_size=30),
    now=st.floats(0.0, 60.0),
)
@PROPERTY
def test_whatever_waits(slots: list[int], service: float, crowd: list[str], now: float) -> None:
    """Places count up, nobody's wait is negative, and of one kind nobody waits shorter than who is before them, by more than hosts differ in price."""
    room = busy(*slots, service=service)
    for model in crowd:
        room.come(Client(model))
    seen = room.admission.outlook(now)
    assert [each.place for _, each in seen] == list(range(1, len(room.admission) + 1))
    for _, each in seen:
        assert each.wait_seconds is not None
        assert each.first_token_seconds is not None
        assert 0.0 <= each.wait_seconds <= each.first_token_seconds + 1e-9
    for host_ in {each.host for _, each in seen}:
        waits = [each.wait_seconds for waiter, each in seen if each.host == host_ and waiter.request.model == TEXT]
        assert waits == sorted(waits)
