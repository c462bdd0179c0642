"""Uploads to several hosts at once: who is slow, who fails, who has enough."""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from gateway.errors import BadRequest, HostsFailed
from gateway.fleet.blobs import PIECES_AHEAD, Blobs, checked_digest
from gateway.fleet.client import HostClient
from gateway.fleet.host import Host
from gateway.fleet.jobs import Job, Jobs
from gateway.fleet.targets import Targets
from simulator.host import SimulatedHost
from tests.builders import simulated
from tests.sockets import http, listening, nobody, saying, until

PIECE = bytes(range(256)) * 4096
MANY = 24
"""Pieces of a megabyte: more than all buffers on the way hold."""
DIGEST = f"sha256:{hashlib.sha256(PIECE * MANY).hexdigest()}"


class Source:
    """The caller's pieces, and how many have been taken."""

    def __init__(self, count: int = MANY) -> None:
        self.taken = 0
        self._count = count

    async def pieces(self) -> AsyncIterator[bytes]:
        """Each when it is asked for."""
        for _ in range(self._count):
            self.taken += 1
            yield PIECE


class Uploading:
    """Uploads to some hosts."""

    def __init__(self, hosts: list[Host], client: HostClient) -> None:
        self.hosts = tuple(hosts)
        self.blobs = Blobs(client, name_hosts=lambda: True)
        self.jobs = Jobs(lambda: 0.0, lambda: 0.0, random.Random(1))
        self.job: Job | None = None

    async def upload(self, source: Source, digest: str = DIGEST, size: int | None = None) -> int:
        """The status for the caller."""
        with self.jobs.track("blob", digest, Targets(self.hosts, {})) as self.job:
            return (await self.blobs.upload(self.job, digest, source.pieces(), size)).status


@contextlib.asynccontextmanager
async def uploading(*hosts: SimulatedHost | str) -> AsyncIterator[Uploading]:
    """To these hosts; a text is a URL."""
    client = HostClient(2.0, 1.0)
    named = [
        Host(f"host{number}", host) if isinstance(host, str) else Host(host.name, host.url)
        for number, host in enumerate(hosts)
    ]
    try:
        yield Uploading(named, client)
    finally:
        await client.close()


async def never_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A host that takes the head in and nothing more, and says nothing."""
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "digest", ["", "nonsense", "sha256:abc", f"sha256:{'g' * 64}", f"sha512:{'0' * 64}", "/" + DIGEST]
)
def test_what_is_no_digest(digest: str) -> None:
    """Ollama's words."""
    with pytest.raises(BadRequest, match=r"^invalid digest format$"):
        checked_digest(digest)


@pytest.mark.parametrize("digest", [DIGEST, DIGEST.replace(":", "-"), DIGEST.upper().replace("SHA", "sha")])
def test_digests(digest: str) -> None:
    """As Ollama accepts them, as they were given."""
    assert checked_digest(digest) == digest


@pytest.mark.parametrize("size", [None, len(PIECE) * MANY])
async def test_to_all(size: int | None) -> None:
    """Each host gets every byte, with the length where it is known."""
    async with simulated("a") as a, simulated("b") as b, uploading(a, b) as to:
        assert not await to.blobs.on_all(DIGEST, to.hosts)
        assert await to.upload(Source(), size=size) == 201
        assert [host.store.blobs[DIGEST] for host in (a, b)] == [len(PIECE) * MANY] * 2
        assert await to.blobs.on_all(DIGEST, to.hosts)
        headers = dict(next(seen for seen in a.ledger.received if seen.method == "POST").headers)
        assert headers.get("Content-Length") == (None if size is None else str(size))
        await b.kill()
        assert not await to.blobs.on_all(DIGEST, to.hosts)


async def test_who_has_it_already() -> None:
    """It answers without reading, and the others still get all; when all have it, the caller is not read to the end."""
    async with simulated("a") as a, simulated("b") as b, uploading(a, b) as to:
        a.store.blobs[DIGEST] = 1
        assert await to.upload(Source()) == 201
        assert (a.ledger.body_bytes, b.store.blobs[DIGEST]) == (0, len(PIECE) * MANY)
        source = Source(10**9)
        assert await to.upload(source) == 200
        assert source.taken < 10**9


async def test_who_answers_and_reads_no_more() -> None:
    """Whatever it says, nobody waits for it."""
    async with listening(saying(http(b'{"error":"no"}', 507))) as full, simulated("a") as a, uploading(full, a) as to:
        with pytest.raises(HostsFailed, match=r"^host0: no \(succeeded on a\)$"):
            await to.upload(Source())
        assert a.store.blobs[DIGEST] == len(PIECE) * MANY


async def test_who_is_not_there() -> None:
    """The others get all of it. When nobody is, the caller is not read to the end."""
    with nobody() as dead:
        async with simulated("a") as a, uploading(dead, a) as to:
            with pytest.raises(HostsFailed, match=r"^host0: cannot connect: .* \(succeeded on a\)$"):
                await to.upload(Source())
            assert DIGEST in a.store.blobs
        async with uploading(dead) as to:
            with pytest.raises(HostsFailed, match=r"^host0: cannot connect"):
                await to.upload(Source(10**9))


async def test_all_refuse() -> None:
    """With one status it is the hosts' own answer."""
    refusing = saying(http(b'{"error":"no"}', 403))
    async with listening(refusing) as one, listening(refusing) as two, uploading(one, two) as to:
        assert await to.upload(Source()) == 403


@pytest.mark.parametrize("status", [202, 302, 999])
async def test_an_odd_status(status: int) -> None:
    """It is never the caller's."""
    async with listening(saying(http(b"", status))) as url, uploading(url) as to:
        with pytest.raises(HostsFailed, match=rf"^host0: it answered {status}$"):
            await to.upload(Source())


@pytest.mark.parametrize("size", [None, len(PIECE) * MANY])
async def test_another_digest(size: int | None) -> None:
    """The uploads are broken off before their end: nobody stores it."""
    async with simulated("a") as a, simulated("b") as b, uploading(a, b) as to:
        with pytest.raises(BadRequest, match=r"^digest mismatch, expected"):
            await to.upload(Source(), f"sha256:{'0' * 64}", size)
        for host in (a, b):
            await host.wait_until(lambda host=host: host.ledger.abandoned["/api/blobs/:"] == 1)
            assert 0 < host.ledger.body_bytes < len(PIECE) * MANY
            assert f"sha256:{'0' * 64}" not in host.store.blobs
            assert DIGEST not in host.store.blobs


async def test_the_slowest_sets_the_pace() -> None:
    """The caller is read no further than a few pieces ahead of it; stopping ends it."""
    source = Source(10**9)
    async with listening(never_reading) as slow, simulated("a") as a, uploading(slow, a) as to:
        going = asyncio.get_running_loop().create_task(to.upload(source), name="upload")
        await a.wait_until(lambda: a.ledger.body_bytes > 2 * len(PIECE))
        seen = -1
        while seen != a.ledger.body_bytes:  # it comes to a stand
            seen = a.ledger.body_bytes
            for _ in range(200):
                await until(lambda: True)
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        assert source.taken < 40
        assert source.taken * len(PIECE) - seen <= (PIECES_AHEAD + 4) * len(PIECE)
        assert to.job is not None
        to.job.stop("enough")
        with pytest.raises(HostsFailed, match=r"^host0, a: enough$"):
            await going
        await a.wait_until(lambda: a.ledger.abandoned["/api/blobs/:"] == 1)


async def test_a_caller_who_leaves() -> None:
    """What its pieces raise is raised, and no host has stored anything."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield PIECE
        raise ConnectionResetError

    async with simulated("a") as a, uploading(a) as to:
        with pytest.raises(ConnectionResetError), to.jobs.track("blob", DIGEST, Targets(to.hosts, {})) as job:
            await to.blobs.upload(job, DIGEST, pieces(), None)
        await a.wait_until(lambda: a.ledger.abandoned["/api/blobs/:"] == 1)
        assert DIGEST not in a.store.blobs
