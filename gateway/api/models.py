"""What changes the models on the hosts: pull, push, create, copy, delete, blobs. Each is a job on some hosts; one answer for all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from aiohttp import ClientError, HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.api.answers import JSON, Answer, Streamed, json_answer, rendered, type_of
from gateway.api.bodies import read_body
from gateway.api.detaching import detaching
from gateway.api.manners import ABOUT, sign
from gateway.config import Config
from gateway.dialects.managing import ManagementRequest, Operation, read_management
from gateway.dialects.ollama import compact
from gateway.errors import BadRequest, Cancelled, CorralError, NoHost, ShuttingDown
from gateway.fleet.blobs import Blobs, checked_digest
from gateway.fleet.client import HostAnswer, HostClient
from gateway.fleet.fanout import FanOut
from gateway.fleet.jobs import BLOB, Job, Jobs
from gateway.fleet.manage import Changer
from gateway.fleet.poller import Poller
from gateway.fleet.progress import Line
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView
from gateway.fleet.targets import Targets, exactly, holder, holders, named, placed, taking
from gateway.tasks import Tasks

NDJSON = "application/x-ndjson"
RETRY_AFTER_SECONDS = 2.0
REFRESH_SECONDS = 1.0  # how long it is waited for who has a model
PIECE_BYTES = 128 * 1024  # of a blob; the network may deliver far more at a time


class Models:
    """Handlers of Ollama's managing endpoints. ``rules`` say where models go; ``draining`` makes them refuse new work; ``tasks`` own the
    jobs that run on without their callers."""

    def __init__(
        self, fleet: Fleet, jobs: Jobs, client: HostClient, poller: Poller, config: Config, tasks: Tasks
    ) -> None:
        self._tasks = tasks
        self._fleet = fleet
        self._jobs = jobs
        self._poller = poller
        self.rules = config.placement
        self._model_at_host = config.relay.model_at_host
        self._body_limit = config.relay.body_limit_bytes
        self._fanout = FanOut(client, jobs.clock, poller.refresh_changed, name_hosts=self._several)
        self._changer = Changer(fleet, client, poller.refresh_changed, name_hosts=self._several)
        self._blobs = Blobs(client, name_hosts=self._several)
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """As Ollama has them."""
        return [
            web.post("/api/pull", partial(self._with_progress, Operation.PULL)),
            web.post("/api/push", partial(self._with_progress, Operation.PUSH)),
            web.post("/api/create", partial(self._with_progress, Operation.CREATE)),
            web.post("/api/copy", partial(self._at_once, Operation.COPY)),
            web.delete("/api/delete", partial(self._at_once, Operation.DELETE)),
            web.head("/api/blobs/{digest}", self.has_blob),
            web.post("/api/blobs/{digest}", self.add_blob),
        ]

    async def has_blob(self, request: web.Request) -> web.StreamResponse:
        """200 if every host has it, else 404."""
        digest = checked_digest(request.match_info["digest"])
        targets = _some(self._takers(request, self._views))
        missing = targets.by_name and targets.left_out
        if not missing and await self._blobs.on_all(digest, targets.hosts):
            return Answer(status=200)
        return json_answer({"error": f'blob "{digest}" not found'}, status=404)

    async def add_blob(self, request: web.Request) -> web.StreamResponse:
        """Send the body to every host as it comes in. 201 if any stored it, 200 if all had it."""
        digest = checked_digest(request.match_info["digest"])

        async def upload(job: Job) -> web.StreamResponse:
            answer = await self._blobs.upload(job, digest, _pieces(request), request.content_length)
            return _answered(answer)

        return await self._tracked(BLOB, digest, self._takers(request, self._views), upload)

    async def _with_progress(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        detach, _ = detaching(request.rel_url.raw_query_string, request.headers.get("X-Corral-Detach", ""))
        asked = await self._read(operation, request)
        if detach:
            return await self._detached(asked, await self._targets(asked, request))

        async def run(job: Job) -> web.StreamResponse:
            told = _Progress(request, job, asked)
            end = await self._fanout.run(job, asked, told.say)
            if isinstance(end, HostAnswer):
                return _answered(end)
            if job.stopped and "error" in end and not told.started:
                raise Cancelled(str(end["error"]))
            self._jobs.end(job)  # who has read the last line and asks for the job sees how it ended
            return await told.end(end)

        return await self._tracked(operation, asked.model, await self._targets(asked, request), run)

    async def _detached(self, asked: ManagementRequest, targets: Targets) -> web.StreamResponse:
        """The job runs on without its caller, who is told which it is."""
        if self.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        started: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        some = _some(targets)

        async def run() -> None:
            with contextlib.suppress(CorralError), self._jobs.track(asked.operation, asked.model, some) as job:
                if not started.done():  # the caller may have left already
                    started.set_result(job)
                await self._fanout.run(job, asked, _nobody)  # its parts tell how it ended

        self._tasks.spawn(f"{asked.operation} {asked.model}", run())
        job = await started
        answer = json_answer({"id": job.id}, status=202)
        answer.headers.update({"Location": f"/api/jobs/{job.id}", **_about(job)})
        return answer

    async def _at_once(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        asked = await self._read(operation, request)

        async def run(job: Job) -> web.StreamResponse:
            return _answered(await self._changer.change(job, asked))

        return await self._tracked(operation, asked.model, await self._targets(asked, request), run)

    async def _read(self, operation: Operation, request: web.Request) -> ManagementRequest:
        body = await read_body(request, self._body_limit)
        asked = read_management(operation, body, self._fleet.names if self._model_at_host else ())
        request[ABOUT] = (asked.model,)
        return asked

    async def _targets(self, asked: ManagementRequest, request: web.Request) -> Targets:
        """The hosts that this concerns. Who has a model is asked anew: the last poll may be seconds old."""
        if asked.operation in (Operation.PULL, Operation.CREATE):
            return self._takers(request, placed(asked.name, self._views, self.rules), asked.host)
        self._named(request)  # who names a host that is not there is told so at once
        await self._poller.refresh_inventories(REFRESH_SECONDS)
        views = self._named(request, asked.host) or self._views
        return holder(asked.name, views) if asked.operation is Operation.PUSH else holders(asked.name, views)

    def _takers(self, request: web.Request, views: Sequence[HostView], host: str = "") -> Targets:
        """Who gets something new: the hosts that the caller names, else those of ``views`` that take it."""
        these = self._named(request, host)
        return exactly(these) if these else taking(views)

    def _named(self, request: web.Request, host: str = "") -> Sequence[HostView]:
        """The hosts that the caller names, in the header or at the model's name; none where all are meant. Raises BadRequest."""
        given = request.headers.getall("X-Corral-Hosts", ())
        header = ",".join(given)
        if given and not header.strip(", "):
            raise BadRequest("X-Corral-Hosts names no host: leave the header out where all are meant")
        these = named(header or host, self._views)
        if host and [view.name for view in these] != [host]:
            raise BadRequest(
                f"X-Corral-Hosts says {header!r}, and the model's name ends in @{host}: one of them has to go"
            )
        return these

    def _several(self) -> bool:
        """Whether errors have to say which host's they are."""
        return len(self._fleet.hosts) > 1

    @property
    def _views(self) -> Sequence[HostView]:
        return self._fleet.snapshot(self._jobs.clock()).hosts

    async def _tracked(
        self, kind: str, model: str, targets: Targets, work: Callable[[Job], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """``work`` as a job. What it raises is rendered here, so that errors name the job as well."""
        if self.draining:
            raise ShuttingDown("the gateway is shutting down", retry_after=5.0)
        try:
            with self._jobs.track(kind, model, _some(targets)) as job:
                try:
                    response = await work(job)
                except CorralError as error:
                    response = rendered(Cancelled(error.message) if job.stopped else error)
                if not response.prepared:
                    response.headers.update(_about(job))
                return response
        except ConnectionError:  # the caller has gone, and nobody reads this
            return Answer(status=499)


async def _nobody(_line: Line) -> None:
    """Follows a job that runs by itself."""


class _Progress:
    """The answer to a caller who follows it: line by line, or, without ``stream``, the last one alone."""

    def __init__(self, request: web.Request, job: Job, asked: ManagementRequest) -> None:
        self._request = request
        self._job = job
        self._stream = asked.stream
        self._response = Streamed(headers={"Content-Type": NDJSON, **_about(job)})
        if request.version < HttpVersion11:
            self._response.force_close()  # how such a client learns where the answer ends
        sign(request, self._response.headers)

    @property
    def started(self) -> bool:
        """Whether the caller has got a line."""
        return self._response.prepared

    async def say(self, line: Line) -> None:
        """One line of progress."""
        if not self._stream:
            return
        if not self.started:
            await self._response.prepare(self._request)
            for host, why in self._job.left_out.items():
                await self._write({"status": f"{host} is left out: {why}"})
        await self._write(line)

    async def end(self, line: Line) -> web.StreamResponse:
        """The last line."""
        if not self._stream:
            return json_answer(line, status=500 if "error" in line else 200, content_type=JSON)
        await self.say(line)
        await self._response.write_eof()
        return self._response

    async def _write(self, line: Line) -> None:
        await self._response.write(compact(line) + b"\n")


def _some(targets: Targets) -> Targets:
    """The same; raises NoHost where nobody is to be asked."""
    if targets.hosts:
        return targets
    if draining := ", ".join(targets.left_out):
        why = f"every host that this concerns is draining: {draining}; X-Corral-Hosts can name them all the same"
    else:
        why = "no host is known that this concerns"
    raise NoHost(why, retry_after=RETRY_AFTER_SECONDS)


def _about(job: Job) -> dict[str, str]:
    about = {"X-Corral-Job": job.id, "X-Corral-Hosts": ",".join(host.name for host in job.hosts)}
    return about | ({"X-Corral-Left-Out": ",".join(job.left_out)} if job.left_out else {})


def _answered(answer: HostAnswer) -> Answer:
    return Answer(status=answer.status, body=answer.body or None, headers=type_of(answer))


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes in, whatever its size. Raises ConnectionError when the caller leaves in the middle."""
    try:
        async for piece in request.content.iter_chunked(PIECE_BYTES):
            yield piece
    except (ClientError, HttpProcessingError, web.RequestPayloadError) as error:
        raise ConnectionResetError("the caller left") from error
