"""What changes models on the hosts now and did lately, and how to stop it."""

from typing import Any

from aiohttp import web

from gateway.api.answers import json_answer
from gateway.errors import NotFound
from gateway.fleet.jobs import Job, Jobs

STOPPED = "stopped by an operator"


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

    async def all(self, _request: web.Request) -> web.Response:
        """Those that run, then the last that ended, each oldest first."""
        return json_answer({"jobs": [self._row(job) for job in self._jobs]})

    async def one(self, request: web.Request) -> web.Response:
        """One job."""
        return json_answer(self._row(self._found(request)))

    async def stop(self, request: web.Request) -> web.Response:
        """Stop one. Idempotent, also once it has ended; 404 when it is not known (any more)."""
        job = self._found(request)
        stopped = job.stop(STOPPED)
        return json_answer({"id": job.id, "stopped": True, "already": not stopped, "outcome": job.outcome})

    def _found(self, request: web.Request) -> Job:
        id_ = request.match_info["id"]
        job = self._jobs.get(id_)
        if job is None:
            raise NotFound(f"no job {id_[:64]!r} runs or ended lately")
        return job

    def _row(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "kind": job.kind,
            "model": job.model,
            "hosts": [
                {
                    "host": name,
                    "state": part.state,
                    "status": part.status,
                    "digest": part.digest,
                    "completed": part.completed,
                    "total": part.total,
                    "error": part.error or None,
                }
                for name, part in job.everyone().items()
            ],
            "started": round(job.started, 3),
            "seconds": round(job.seconds(self._jobs.clock()), 3),
            "outcome": job.outcome,
        }
