"""Jobs: operations on models that run on several hosts, and the last ones that ended.

Owned by the event loop's thread. A job lives in the task that asked for it: ``Job.scope`` is what ``stop`` ends, and a caller who
leaves cancels the task. Both unwind the same ``finally``s, which close the hosts' connections.
"""

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from enum import StrEnum

from gateway.dialects.managing import Operation
from gateway.fleet.progress import Part, PartState
from gateway.fleet.targets import Targets
from gateway.ids import new_id

KEPT = 100
NAME_LIMIT = 200  # characters of a model's name that are kept
BLOB = "blob"
LEFT = "the caller left"
KINDS = (*Operation, BLOB)


class JobOutcome(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"  # on every host that was asked
    PARTIAL = "partial"  # on some
    FAILED = "failed"
    STOPPED = "stopped"  # by an operator or a shutdown
    CANCELLED = "cancelled"  # the caller left


class Job:
    """One operation. ``kind`` is one of KINDS, ``model`` the name (of a blob the digest) as the caller gave it.

    ``parts`` are the hosts that are asked, ``left_out`` those that are not, with the reason; where the caller named all of them, these are
    parts as well, which have failed.
    """

    def __init__(self, id_: str, kind: str, model: str, targets: Targets, started: float, began: float) -> None:
        self.id = id_
        self.kind = kind
        self.model = model[:NAME_LIMIT]
        self.hosts = targets.hosts
        self.left_out = targets.left_out
        self.parts = {host.name: Part() for host in targets.hosts}
        if targets.by_name:
            self.parts = self.everyone()
        self.started = started
        self.began = began
        self.ended: float | None = None
        self.outcome: JobOutcome | None = None
        self.stopped = ""
        self._scope: asyncio.Timeout | None = None

    def everyone(self) -> dict[str, Part]:
        """The parts, and those of the hosts that are not asked: failed."""
        return self.parts | {name: Part(PartState.FAILED, why) for name, why in self.left_out.items()}

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[None]:
        """The work. When ``stop`` ends it, the parts that still run are stopped, and nothing is raised."""
        try:
            async with asyncio.timeout(None) as self._scope:
                if self.stopped:
                    self._scope.reschedule(0.0)
                yield
        except TimeoutError:
            if not self.stopped:
                raise
            for part in self.parts.values():
                part.end(PartState.STOPPED, self.stopped)
        finally:
            self._scope = None

    def stop(self, why: str) -> bool:
        """End the scope. Idempotent; False if it is over on all hosts (also while that is still to be told), or being stopped already."""
        if self.stopped or not any(part.running for part in self.parts.values()):
            return False
        self.stopped = why
        if self._scope is not None:
            self._scope.reschedule(0.0)
        return True

    def close(self, now: float, *, cancelled: bool) -> None:
        """The job is over."""
        self.outcome = JobOutcome.CANCELLED if cancelled else _outcome([part.state for part in self.parts.values()])
        for part in self.parts.values():
            part.end(PartState.STOPPED, LEFT if cancelled else "")
        self.ended = now

    @property
    def reason(self) -> str:
        """Why it was ended before its time; empty where it was not."""
        return LEFT if self.outcome is JobOutcome.CANCELLED else self.stopped

    def seconds(self, now: float) -> float:
        """How long it has taken, or took."""
        return (now if self.ended is None else self.ended) - self.began


def _outcome(states: list[PartState]) -> JobOutcome:
    if PartState.STOPPED in states:
        return JobOutcome.STOPPED
    if PartState.SUCCEEDED not in states:
        return JobOutcome.FAILED
    return JobOutcome.SUCCEEDED if set(states) == {PartState.SUCCEEDED} else JobOutcome.PARTIAL


class Jobs:
    """All that run, and the last KEPT that ended. Each of ``sinks`` is called with a job that has ended."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
        sinks: Iterable[Callable[[Job], None]] = (),
    ) -> None:
        self.clock = clock
        self._wall = wall
        self._rng = rng
        self._sinks = tuple(sinks)
        self._running: dict[str, Job] = {}
        self._ended: deque[Job] = deque(maxlen=KEPT)
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running)

    def running(self) -> dict[str, int]:
        """How many run, of each kind."""
        return dict.fromkeys(KINDS, 0) | Counter(job.kind for job in self._running.values())

    def __iter__(self) -> Iterator[Job]:
        """Those that run, then those that ended, each oldest first."""
        yield from self._running.values()
        yield from self._ended

    def get(self, id_: str) -> Job | None:
        """The job with this id, if it is still known."""
        return self._running.get(id_) or next((job for job in self._ended if job.id == id_), None)

    @contextlib.contextmanager
    def track(self, kind: str, model: str, targets: Targets) -> Iterator[Job]:
        """A job while it runs. Leaving ends it, if nobody has done so before."""
        wall = self._wall()
        id_ = new_id(wall, self._rng.getrandbits(52))
        job = self._running[id_] = Job(id_, kind, model, targets, wall, self.clock())
        self._idle.clear()
        cancelled = False
        try:
            yield job
        except (asyncio.CancelledError, ConnectionError):
            cancelled = True
            raise
        finally:
            self.end(job, cancelled=cancelled)

    def end(self, job: Job, *, cancelled: bool = False) -> None:
        """The work is done, and counted and logged; who asked for it may still have to be told. Only the first end counts."""
        if job.outcome is not None:
            return
        job.close(self.clock(), cancelled=cancelled)
        del self._running[job.id]
        self._ended.append(job)
        if not self._running:
            self._idle.set()
        for sink in self._sinks:
            sink(job)

    async def idle(self) -> None:
        """Return once no job runs."""
        await self._idle.wait()

    def stop_all(self, why: str) -> int:
        """Stop every job; how many were not being stopped already."""
        return sum(job.stop(why) for job in tuple(self._running.values()))
