"""Operations on many hosts at once (fan-out)."""

import asyncio
from collections.abc import Callable

from gateway.dialects.managing import ManagementRequest, Operation
from gateway.dialects.request import InferenceRequest
from gateway.errors import HostsFailed, ModelNotFound, NoHost
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.fanout import REFRESH_SECONDS, Refresh
from gateway.fleet.health import State
from gateway.fleet.host import Host
from gateway.fleet.jobs import Job
from gateway.fleet.progress import PartState, by_host, failure
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView

UNLOAD_SECONDS = 30.0  # Ollama waits for VRAM to come back
CHANGE_SECONDS = 30.0  # a manifest is written, or blobs removed
METHODS = {Operation.COPY: "POST", Operation.DELETE: "DELETE"}


class Unloader:
    """Sends an unload to every host that has the model in memory: the caller knows one server, and means all of it."""

    def __init__(self, fleet: Fleet, client: HostClient, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._client = client
        self._clock = clock

    async def unload(self, request: InferenceRequest) -> tuple[HostAnswer, str]:
        """Fan out; one host's answer for all, and which were asked. Raises ModelNotFound, NoHost, HostsFailed."""
        targets = self._targets(request)
        asked = ", ".join(host.name for host in targets)
        answers = await asyncio.gather(*(self._one(host, request) for host in targets))
        good = [answer for answer in answers if isinstance(answer, HostAnswer)]
        for answer in good:
            if answer.status == 200:
                return answer, asked
        if good:
            return good[0], asked
        raise HostsFailed(by_host({host.name: str(error) for host, error in zip(targets, answers, strict=True)}))

    def _targets(self, request: InferenceRequest) -> list[Host]:
        views = self._fleet.snapshot(self._clock()).hosts
        views = tuple(view for view in views if not request.pin or view.name == request.pin)
        having = [view for view in views if view.available and request.model in view.available]
        if not having:
            if any(view.available is not None for view in views):
                raise ModelNotFound(request.endpoint.not_found.format(request.requested_model))
            raise NoHost("no host has told its models yet", retry_after=2.0)
        up = [view for view in having if view.health.state is not State.EJECTED] or having
        loaded = [view.host for view in up if _has_in_memory(view, request.model)]
        return loaded or [up[0].host]  # unloading what is not loaded is a 200 of any host's

    async def _one(self, host: Host, request: InferenceRequest) -> HostAnswer | str:
        try:
            answer = await self._client.call(host, "POST", request.endpoint.path, request.body, UNLOAD_SECONDS)
        except HostError as error:
            return str(error)
        if not 200 <= answer.status < 600 or answer.status in (204, 304):
            return f"it answered {answer.status}"
        if answer.status == 200:
            self._fleet.forget_loaded(host.name, request.model, self._clock())
        return answer


def _has_in_memory(view: HostView, model: str) -> bool:
    digest = view.digest_of(model)
    return digest in view.loaded or digest in view.loading


class Changer:
    """Copies and deletes a model on every host that has it."""

    def __init__(self, fleet: Fleet, client: HostClient, refresh: Refresh, *, name_hosts: Callable[[], bool]) -> None:
        self._fleet = fleet
        self._client = client
        self._refresh = refresh
        self._name_hosts = name_hosts

    async def change(self, job: Job, request: ManagementRequest) -> HostAnswer:
        """Fan out; one host's answer for all. Raises HostsFailed, which says where it worked."""
        answers: list[HostAnswer] = []
        async with job.scope():
            replies = await asyncio.gather(*(self._one(job, host, request) for host in job.hosts))
            answers = [reply for reply in replies if reply is not None]
        worked = [name for name, part in job.parts.items() if part.state is PartState.SUCCEEDED]
        await self._refresh(worked, REFRESH_SECONDS)
        if len(answers) == len(job.parts) and not job.left_out:
            statuses = [answer.status for answer in answers]
            if len(set(statuses)) == 1:
                return answers[0]
            if set(statuses) == {200, 404}:
                return answers[statuses.index(200)]
        raise HostsFailed(failure(job.everyone(), name_hosts=self._name_hosts()))

    async def _one(self, job: Job, host: Host, request: ManagementRequest) -> HostAnswer | None:
        part = job.parts[host.name]
        part.state = PartState.RUNNING
        method, path = METHODS[request.operation], f"/api/{request.operation}"
        try:
            answer = await self._client.call(host, method, path, request.body, CHANGE_SECONDS)
        except HostError as error:
            part.end(PartState.FAILED, str(error))
            return None
        if answer.status == 200:
            part.end(PartState.SUCCEEDED)
            if request.operation is Operation.DELETE:
                self._fleet.forget_model(host.name, request.name)
        else:
            part.end(PartState.FAILED, answer.error)
        return answer if answer.status == 200 or answer.refuses else None
