"""What changes models on the hosts now and did lately, and how to stop it."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.api.handler import handler
from gateway.doc import doc
from gateway.errors import NotFound
from gateway.fleet.jobs import Job, JobOutcome, Jobs
from gateway.fleet.progress import Part, PartState

STOPPED = "stopped by an operator"


class OneJob(msgspec.Struct, frozen=True):
    """Names a job."""

    id: Annotated[str, doc("a job's id, as `X-Corral-Job` told it")]


class PartRow(msgspec.Struct, frozen=True):
    """One host's part of a job."""

    host: Annotated[str, doc("the host's name")]
    state: Annotated[PartState, doc("`waiting`, `running`, or how it ended: `succeeded`, `failed`, `stopped`")]
    status: Annotated[str, doc("what the host said last")]
    digest: Annotated[str, doc("the layer that the bytes are of; empty before the first")]
    completed: Annotated[int, doc("bytes of that layer that are done", ge=0)]
    total: Annotated[int, doc("bytes of that layer", ge=0)]
    error: Annotated[str | None, doc("why it failed or was stopped")]


class JobRow(msgspec.Struct, frozen=True):
    """One operation on a model, on some hosts."""

    id: Annotated[str, doc("unique, sortable by time")]
    kind: Annotated[str, doc("`pull`, `push`, `create`, `copy`, `delete` or `blob`")]
    model: Annotated[str, doc("as the caller named it; of a blob the digest")]
    hosts: Annotated[list[PartRow], doc("those that were asked, then those that were left out: failed, and why")]
    started: Annotated[float, doc("Unix seconds")]
    seconds: Annotated[float, doc("how long it has taken, or took")]
    outcome: Annotated[
        JobOutcome | None,
        doc(
            "null while it runs, then `succeeded`: on every host that was asked; `partial`: on some; `failed`; "
            "`stopped`: by an operator or a shutdown; `cancelled`: the caller left"
        ),
    ]


class JobList(msgspec.Struct, frozen=True):
    """All jobs that are known."""

    jobs: Annotated[list[JobRow], doc("those that run, then the last 100 that ended, each oldest first")]


class JobStopped(msgspec.Struct, frozen=True):
    """A job that ends now, or has ended."""

    id: Annotated[str, doc("the job's id")]
    stopped: Annotated[bool, doc("true")]
    already: Annotated[bool, doc("whether it was over on every host, or being stopped, before")]
    outcome: Annotated[JobOutcome | None, doc("how it ended; null while it ends")]


class JobsApi:
    """Handlers of ``/api/jobs``."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """List, look at, stop."""
        return [
            web.get("/api/jobs", self.all),
            web.get("/api/jobs/{id}", self.one),
            web.delete("/api/jobs/{id}", self.stop),
        ]

    @handler()
    async def all(self) -> JobList:
        """All jobs: those that run, then the last that ended, each oldest first."""
        return JobList([self._row(job) for job in self._jobs])

    @handler(NotFound)
    async def one(self, path: OneJob) -> JobRow:
        """One job."""
        return self._row(self._found(path.id))

    @handler(NotFound)
    async def stop(self, path: OneJob) -> JobStopped:
        """Stop a job. Idempotent, also once it has ended; 404 when it is not known (any more)."""
        job = self._found(path.id)
        stopped = job.stop(STOPPED)
        return JobStopped(job.id, stopped=True, already=not stopped, outcome=job.outcome)

    def _found(self, id_: str) -> Job:
        job = self._jobs.get(id_)
        if job is None:
            raise NotFound(f"no job {id_[:64]!r} runs or ended lately")
        return job

    def _row(self, job: Job) -> JobRow:
        return JobRow(
            id=job.id,
            kind=job.kind,
            model=job.model,
            hosts=[_part(name, part) for name, part in job.everyone().items()],
            started=round(job.started, 3),
            seconds=round(job.seconds(self._jobs.clock()), 3),
            outcome=job.outcome,
        )


def _part(host: str, part: Part) -> PartRow:
    return PartRow(host, part.state, part.status, part.digest, part.completed, part.total, part.error or None)
