"""Keys that were made while it ran: kept, found again, rotated, revoked, and known at every gateway on the database."""

import asyncio
import time

import msgspec
import pytest

from gateway.access.keys import Key, digest
from gateway.access.limits import NO_LIMITS, Limits
from gateway.access.rights import KeyRole
from gateway.config import DatabaseConfig
from gateway.dialects.request import Priority
from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.store.engine import Database
from gateway.store.keyring import Keyring
from gateway.store.none import NoDatabase
from gateway.tasks import Tasks
from tests.sockets import until

ANN = Key("ann", KeyRole.USER, digest("crl_a"), ("llama3*", "qwen«2»"), ("gpu1",), 2e9, 1e9)
BOB = Key("bob", KeyRole.ADMIN, digest("crl_b"), created=1e9)


class Told(list[tuple[Key, ...]]):
    """What the gate was told, in order."""

    def __call__(self, keys: tuple[Key, ...]) -> None:
        self.append(keys)


async def test_they_are_kept_as_they_are(database: Database) -> None:
    """By name; whoever asks is told of changes alone."""
    told = Told()
    ring = Keyring(database, told)
    await ring.add(BOB)
    await ring.add(ANN)
    assert await ring.look() == (ANN, BOB)
    assert told == [(BOB,), (ANN, BOB)]
    assert await Keyring(database, Told()).look() == (ANN, BOB)


async def test_that_there_are_none_is_told_too(database: Database) -> None:
    """Once: until then nobody knows whether there are any."""
    told = Told()
    ring = Keyring(database, told)
    assert await ring.look() == ()
    await ring.look()
    assert told == [()]


async def test_a_name_is_there_once(database: Database) -> None:
    """Nobody can take another one's by making it again."""
    ring = Keyring(database, Told())
    await ring.add(ANN)
    with pytest.raises(Conflict, match="'ann' already"):
        await ring.add(Key("ann", KeyRole.ADMIN, digest("crl_x")))
    assert await ring.look() == (ANN,)


@pytest.mark.parametrize("name", ["Ann", "ANN", "Anonymous", "an0nym0us"])
async def test_a_name_that_would_be_taken_for_another(database: Database, name: str) -> None:
    """Nobody gets it, not even after that one was revoked."""
    ring = Keyring(database, Told())
    await ring.add(ANN)
    other = Key(name, KeyRole.ADMIN, digest("crl_x"))
    with pytest.raises(Conflict, match="would be taken for"):
        await ring.add(other)
    await ring.revoke("ann")
    with pytest.raises(Conflict, match="would be taken for"):
        await ring.add(other, again=True)
    assert [key.name for key in await ring.look()] == ["ann"]


async def test_two_at_once_whose_names_look_alike(database: Database) -> None:
    """One of them gets its name."""
    ring = Keyring(database, Told())
    both = [Key(name, KeyRole.USER, digest(name)) for name in ("ci-1", "CI_l")]
    made = await asyncio.gather(*map(ring.add, both), return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["Conflict", "NoneType"]
    assert len(await ring.look()) == 1


async def test_rotating_and_revoking(database: Database) -> None:
    """Only what the key is changes when it is rotated; what is not there is said."""
    told = Told()
    ring = Keyring(database, told)
    await ring.add(ANN)
    turned = await ring.rotate("ann", digest("crl_n"))
    assert turned.digest == digest("crl_n")
    assert (turned.models, turned.hosts, turned.expires, turned.created) == (
        ANN.models,
        ANN.hosts,
        ANN.expires,
        ANN.created,
    )
    await ring.revoke("ann")
    (gone,) = await ring.look()
    assert told == [(ANN,), (turned,), (gone,)]
    assert msgspec.structs.replace(gone, revoked=0.0) == turned
    assert 0 <= time.time() - gone.revoked < 60
    for step in (ring.rotate("ann", digest("crl_m")), ring.revoke("ann")):
        with pytest.raises(NotFound, match="no key 'ann'"):
            await step


async def test_a_name_that_was_somebodys(database: Database) -> None:
    """Is given to another one only by who says so: its sessions would come with it."""
    ring = Keyring(database, Told())
    await ring.add(ANN)
    with pytest.raises(Conflict, match="already"):
        await ring.add(ANN, again=True)
    await ring.revoke("ann")
    other = Key("ann", KeyRole.ADMIN, digest("crl_x"))
    with pytest.raises(Conflict, match=r"was revoked: .* say `again`"):
        await ring.add(other)
    await ring.add(other, again=True)
    assert await ring.look() == (other,)
    await ring.add(Key("bob", KeyRole.USER, digest("crl_b")), again=True)
    assert [key.name for key in await ring.look()] == ["ann", "bob"]


async def test_limits_are_kept(database: Database) -> None:
    """With the key; others can be set, rotating keeps them, and what is left out of them is as without limits."""
    told = Told()
    ring = Keyring(database, told)
    limits = Limits(60, 20_000, 4, 10**6, 10**7, Priority.NORMAL, 2.5)
    await ring.add(msgspec.structs.replace(ANN, limits=limits))
    assert (await ring.look())[0].limits == limits
    less = await ring.limit("ann", lambda before: msgspec.structs.replace(before, rpm=0, month=0))
    assert less.limits == Limits(0, 20_000, 4, 10**6, 0, Priority.NORMAL, 2.5)
    assert (await ring.rotate("ann", digest("crl_n"))).limits == less.limits
    assert told[-1][0].limits == less.limits
    await ring.limit("ann", lambda _before: NO_LIMITS)
    assert (await ring.look())[0].limits == NO_LIMITS
    with pytest.raises(NotFound, match="no key 'bob'"):
        await ring.limit("bob", lambda before: before)


async def test_other_gateways_learn_of_it(url: str, database: Database) -> None:
    """Within a beat, without being told."""
    other, tasks, told = Database(DatabaseConfig(url), time.monotonic), Tasks(), Told()
    await other.start(30.0)
    tasks.spawn("keys", Keyring(other, told).run())
    here = Keyring(database, Told())
    try:
        await here.add(ANN)
        await until(lambda: bool(told) and told[-1] == (ANN,))
        await here.revoke("ann")
        await until(lambda: bool(told[-1][0].revoked))
    finally:
        await tasks.close()
        await other.close()


async def test_without_a_database() -> None:
    """There are none, and it says so."""
    with pytest.raises(StoreUnavailable):
        await Keyring(NoDatabase(), Told()).look()
