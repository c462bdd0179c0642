"""Blobs: one upload sent on to several hosts as it comes in, in constant memory.

What the caller sends is given to every host piece by piece; the slowest sets the pace. The last piece is held back until the digest
has been checked: an upload that is not what it says is broken off, and no host stores it. A host that fails, or that answers before
it has read everything (it has the blob), gets nothing more, and holds nobody up.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self

from gateway.errors import BadRequest, HostsFailed
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.host import Host
from gateway.fleet.jobs import Job
from gateway.fleet.progress import Part, PartState, failure
from gateway.tasks import Tasks

STORED = {200, 201}  # had it already, stored it
PIECES_AHEAD = 2  # for each host, between the caller's pace and its own
log = logging.getLogger(__name__)
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


def checked_digest(digest: str) -> str:
    """A digest as Ollama accepts it, unchanged. Raises BadRequest in Ollama's words."""
    if not _DIGEST.fullmatch(digest):
        raise BadRequest("invalid digest format")
    return digest


class Blobs:
    """Asks hosts for blobs and sends them some."""

    def __init__(self, client: HostClient, *, name_hosts: Callable[[], bool]) -> None:
        self._client = client
        self._name_hosts = name_hosts

    async def on_all(self, digest: str, hosts: tuple[Host, ...]) -> bool:
        """Whether each of these hosts has it. One that does not answer has not."""
        return all(await asyncio.gather(*(self._has(host, digest) for host in hosts)))

    async def upload(self, job: Job, digest: str, pieces: AsyncIterator[bytes], size: int | None) -> HostAnswer:
        """Send ``pieces`` (of ``size`` bytes in all, if that is known) to the job's hosts; one answer for all.

        201 if a host stored it, 200 if all had it. Raises BadRequest for a digest that is not the pieces', HostsFailed with who failed,
        and whatever ``pieces`` raises.
        """
        upload = _Upload(self._client, job, digest, size)
        async with job.scope():
            await upload.run(pieces)
        if (answer := upload.refusal()) is not None:
            return answer
        if error := failure(job.parts, name_hosts=self._name_hosts()):
            raise HostsFailed(error)
        return max(upload.answers, key=lambda answer: answer.status)

    async def _has(self, host: Host, digest: str) -> bool:
        try:
            return (await self._client.call(host, "HEAD", f"/api/blobs/{digest}")).status == 200
        except HostError:
            return False


class _Feed:
    """The pieces that one host is still to get; the empty one is the end. Nobody waits for it any more once it is closed."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(PIECES_AHEAD)
        self.closed = False

    async def put(self, piece: bytes) -> None:
        """Hand over a piece, when there is room."""
        if not self.closed:
            await self._pieces.put(piece)

    def close(self) -> None:
        """Nothing more is read: who waits for room is let go."""
        self.closed = True
        while not self._pieces.empty():
            self._pieces.get_nowait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not (piece := await self._pieces.get()):
            raise StopAsyncIteration
        self._part.completed += len(piece)
        return piece


class _Upload:
    """One upload while it lasts."""

    def __init__(self, client: HostClient, job: Job, digest: str, size: int | None) -> None:
        self._client = client
        self._job = job
        self._digest = digest
        self._headers: Mapping[str, str] = {} if size is None else {"Content-Length": str(size)}
        self._feeds = {host.name: _Feed(job.parts[host.name]) for host in job.hosts}
        self._reading: asyncio.Timeout | None = None
        self.answers: list[HostAnswer] = []
        for part in job.parts.values():
            part.digest, part.total = digest, size or 0

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Until every host has answered or failed."""
        tasks = Tasks()
        sending = [
            tasks.spawn(f"blob {self._job.id} to {host.name}", self._send(host, self._feeds[host.name]))
            for host in self._job.hosts
        ]
        try:
            await self._read(pieces)
            await asyncio.wait(sending)
        finally:
            await tasks.close()

    def refusal(self) -> HostAnswer | None:
        """The first answer, if all hosts refused with the same status."""
        statuses = {answer.status for answer in self.answers}
        alike = len(statuses) == 1 and len(self.answers) == len(self._job.parts)
        return self.answers[0] if alike and self.answers[0].refuses else None

    @property
    def _wanted(self) -> bool:
        return not all(feed.closed for feed in self._feeds.values())

    async def _read(self, pieces: AsyncIterator[bytes]) -> None:
        """Hand on what comes, until its end, or until no host wants more."""
        try:
            async with asyncio.timeout(None) as self._reading:
                await self._hand_on(pieces)
        except TimeoutError:
            log.debug("blob %s: no host wants more", self._job.id)
        finally:
            self._reading = None

    async def _hand_on(self, pieces: AsyncIterator[bytes]) -> None:
        sha256, held = hashlib.sha256(), b""
        async for piece in pieces:
            if not self._wanted:
                return
            sha256.update(piece)
            await self._put(held)
            held = piece
        found = f"sha256:{sha256.hexdigest()}"
        if found != self._digest.replace("-", ":").lower():
            for part in self._job.parts.values():
                part.end(PartState.FAILED, f"digest mismatch, got {found}")
            raise BadRequest(f'digest mismatch, expected "{self._digest}", got "{found}"')
        await self._put(held)
        for feed in self._feeds.values():
            await feed.put(b"")

    async def _put(self, piece: bytes) -> None:
        if piece:
            for feed in self._feeds.values():
                await feed.put(piece)

    async def _send(self, host: Host, feed: _Feed) -> None:
        part = self._job.parts[host.name]
        part.state = PartState.RUNNING
        try:
            async with self._client.open(host, "POST", f"/api/blobs/{self._digest}", feed, self._headers) as stream:
                answer = await stream.whole()
            self.answers.append(answer)
            stored = answer.status in STORED
            part.end(PartState.SUCCEEDED if stored else PartState.FAILED, "" if stored else answer.error)
        except HostError as error:
            part.end(PartState.FAILED, str(error))
        finally:
            feed.close()
            if self._reading is not None and not self._wanted:
                self._reading.reschedule(0.0)
