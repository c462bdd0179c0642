"""One operation on several hosts at once, its progress merged as it comes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.dialects.managing import ManagementRequest, Operation
from gateway.errors import HostsFailed
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.host import Host
from gateway.fleet.jobs import Job
from gateway.fleet.progress import Line, PartState, Progress
from gateway.tasks import Tasks

WAITING_LINES = 64  # between the hosts' readers and a slow caller; beyond, hosts wait
REFRESH_SECONDS = 5.0  # the longest that `success` waits for the inventories

Say = Callable[[Line], Awaitable[None]]
Refresh = Callable[[Collection[str], float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _End:
    """A host has nothing more to say. ``refused``: it answered so in place of progress."""

    why: str
    refused: HostAnswer | None = None


class FanOut:
    """Pulls, pushes and creates. ``name_hosts``: whether errors say which host's they are."""

    def __init__(
        self, client: HostClient, clock: Callable[[], float], refresh: Refresh, *, name_hosts: Callable[[], bool]
    ) -> None:
        self._client = client
        self._clock = clock
        self._refresh = refresh
        self._name_hosts = name_hosts

    async def run(self, job: Job, request: ManagementRequest, say: Say) -> Line | HostAnswer:
        """Fan out and ``say`` each line as it comes but the last, which is returned.

        Where every host refused alike, that answer is returned, as the host gave it. Raises HostsFailed when none said
        anything else.
        """
        run = _Run(self._client, self._clock, job, name_hosts=self._name_hosts())
        async with job.scope():
            await run.follow(request, say)
        if not job.stopped:
            if (answer := run.refusal()) is not None:
                return answer
            if not run.heard:
                raise HostsFailed(str(run.progress.last()["error"]))
        if request.operation is not Operation.PUSH:
            await self._refresh(
                [name for name, part in job.parts.items() if part.state is PartState.SUCCEEDED], REFRESH_SECONDS
            )
        return run.progress.last()


class _Run:
    """One fan-out while it lasts. ``heard``: some host said a line."""

    def __init__(self, client: HostClient, clock: Callable[[], float], job: Job, *, name_hosts: bool) -> None:
        self._client = client
        self._clock = clock
        self._job = job
        self._events: asyncio.Queue[tuple[str, Mapping[str, Any] | _End]] = asyncio.Queue()
        self._room = asyncio.Semaphore(WAITING_LINES)  # for lines; an end needs none, so that it always arrives
        self._refused: list[HostAnswer] = []
        self.progress = Progress(job.parts, name_hosts=name_hosts)
        self.heard = False

    async def follow(self, request: ManagementRequest, say: Say) -> None:
        """Until every part has ended."""
        tasks = Tasks()
        for host in self._job.hosts:
            tasks.spawn(f"{request.operation} {self._job.id} on {host.name}", self._listen(host, request))
        try:
            while self.progress.running:
                for line in self._merged(*await self._events.get()):
                    await say(line)
        finally:
            await tasks.close()

    def refusal(self) -> HostAnswer | None:
        """The first answer, if all hosts refused with the same status."""
        same = len({answer.status for answer in self._refused}) == 1
        return self._refused[0] if same and len(self._refused) == len(self._job.parts) else None

    def _merged(self, host: str, event: Mapping[str, Any] | _End) -> list[Line]:
        if isinstance(event, _End):
            if event.refused is not None:
                self._refused.append(event.refused)
            return self.progress.end(host, PartState.FAILED, event.why, self._clock())
        self._room.release()
        self.heard = True
        return self.progress.take(host, event, self._clock())

    async def _listen(self, host: Host, request: ManagementRequest) -> None:
        end = _End("internal error; the log has the details")
        try:
            end = await self._follow_one(host, request)
        finally:
            self._events.put_nowait((host.name, end))

    async def _follow_one(self, host: Host, request: ManagementRequest) -> _End:
        try:
            async with self._client.open(host, "POST", f"/api/{request.operation}", request.body) as stream:
                if stream.status != 200:
                    answer = await stream.whole()
                    return _End(answer.error, answer if answer.refuses else None)
                async for line in stream.lines():
                    await self._room.acquire()
                    self._events.put_nowait((host.name, line))
        except HostError as error:
            return _End(str(error))
        return _End("it ended without a last word")
