"""How the answer of a detached generation is read: as it came, or as server-sent events.

A reader that takes no events gets what the caller would have got, status and all, so its answer begins with the first byte. One
that does gets its head at once and comments while nothing is said; an error is then an event.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated

import msgspec
from aiohttp import hdrs, web

from gateway.access.gate import Principal
from gateway.api.answers import Answer, rendered
from gateway.api.generations import OneGeneration
from gateway.api.handler import handler
from gateway.api.manners import sign
from gateway.dialects.lines import Framing
from gateway.dialects.ollama import compact
from gateway.doc import doc
from gateway.errors import Conflict, CorralError, Gone, NotFound
from gateway.relay.chunks import Batch, Chunks, Head, Reader
from gateway.relay.generations import Generations
from gateway.relay.headers import passing
from gateway.relay.shelf import Shelf

EVENTS = "text/event-stream"
NDJSON = "application/x-ndjson"
_MOST_CHUNKS = 10**15


class Place(msgspec.Struct, frozen=True, rename={"start": "from"}):
    """Where to begin."""

    start: Annotated[int, doc("number of the first chunk that is wanted", ge=0, le=_MOST_CHUNKS)] = 0


class CameBack(msgspec.Struct, frozen=True, rename={"last": "Last-Event-ID"}):
    """What a browser says that was here before."""

    last: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=_MOST_CHUNKS)] | None,
        doc("number of the last chunk that it had; the answer goes on behind it, whatever `from` says"),
    ] = None


class FollowingApi:
    """The handler of ``/api/generations/{id}/stream``."""

    def __init__(self, shelf: Shelf, generations: Generations, heartbeat_seconds: float) -> None:
        self._shelf = shelf
        self._generations = generations
        self._heartbeat_seconds = heartbeat_seconds

    def routes(self) -> list[web.RouteDef]:
        """Read."""
        return [web.get("/api/generations/{id}/stream", self.follow, allow_head=False)]

    @handler(
        NotFound,
        Conflict,
        Gone,
        content_type=NDJSON,
        statuses={200: "Status, type and bytes as the caller would have got them, or events.", 204: "Nothing is left."},
    )
    async def follow(
        self, path: OneGeneration, query: Place, headers: CameBack, request: web.Request, who: Principal
    ) -> web.StreamResponse:
        """The answer of a detached generation: its chunks so far, then those that come, until the end. With `Accept:
        text/event-stream` each is an event with its number as id."""
        answer = self._found(path.id, who)
        following = Following(request, answer, self._heartbeat_seconds)
        with answer.reader(query.start if headers.last is None else headers.last + 1) as reader:
            try:
                if EVENTS in request.headers.get(hdrs.ACCEPT, ""):
                    return await following.as_events(reader)
                return await following.as_it_came(reader)
            except ConnectionError:  # the reader has gone
                return following.response

    def _found(self, id_: str, who: Principal) -> Chunks:
        """Only its owner's: what was said is for nobody else, whatever their role."""
        answer, running = self._shelf.get(id_), self._generations.get(id_)
        if answer is not None and answer.principal == who.name:
            return answer
        if answer is None and running is not None and running.principal == who.name:
            raise Conflict(
                f"generation {id_} is not detached: its answer goes to its caller only. Start it with ?detach=true"
            )
        raise NotFound(f"no detached generation {id_[:64]!r} runs or ended lately")


class Following:
    """One reader's response. ``about``: headers that it has besides."""

    def __init__(
        self, request: web.Request, answer: Chunks, heartbeat_seconds: float, about: Mapping[str, str] | None = None
    ) -> None:
        self._request = request
        self._answer = answer
        self._more = dict(about or {})
        self._heartbeat_seconds = heartbeat_seconds
        self.response = web.StreamResponse()

    async def as_it_came(self, reader: Reader) -> web.StreamResponse:
        """In the answer's own framing."""
        head = await reader.begun()
        if head is None or head.framing is Framing.SINGLE:
            return await self.whole(reader, head)
        await self._open(head.status, head, dict(passing(head.headers)))
        if head.framing is Framing.SSE:
            return await self._pump(reader, events=True)
        return await self._pump(reader, events=False)

    async def as_events(self, reader: Reader) -> web.StreamResponse:
        """Wrapped, each chunk as an event that has its number as id. 204 where nothing is left: browsers then stop asking."""
        answer = self._answer
        if answer.ended is not None:
            if answer.error is not None or (answer.head is not None and answer.head.status >= 400):
                return await self.whole(reader, answer.head)
            if reader.at >= answer.count:
                return Answer(status=204, headers={"X-Corral-Generation": answer.id})
        await self._open(200, answer.head, {"Content-Type": EVENTS})
        return await self._pump(reader, events=True)

    async def whole(self, reader: Reader, head: Head | None) -> web.StreamResponse:
        """An answer in one piece, or the error instead of any."""
        body = b""
        async for batch in reader:
            if batch.gone:
                raise Gone(f"the answer of generation {self._answer.id} was too large to be kept")
            body += b"".join(batch.chunks)
        if self._answer.error is not None:
            failed = rendered(self._answer.error, self._answer.endpoint, self._answer.id)
            failed.headers.update(self._more)
            return failed
        assert head is not None
        response = Answer(status=head.status, body=body)
        response.headers.extend(passing(head.headers))
        response.headers.update(self._about(head))
        return response

    def _about(self, head: Head | None) -> dict[str, str]:
        host = {"X-Corral-Host": head.host} if head is not None and head.host else {}
        return {"X-Corral-Generation": self._answer.id} | host | self._more

    async def _open(self, status: int, head: Head | None, headers: dict[str, str]) -> None:
        self.response = web.StreamResponse(status=status, headers=headers | self._about(head))
        self.response.headers["Cache-Control"] = "no-cache"
        self.response.headers["X-Accel-Buffering"] = "no"  # nginx: pass on what comes
        sign(self._request, self.response.headers)
        if self._request.version < (1, 1):
            self.response.force_close()  # how such a reader learns where the answer ends
        await self.response.prepare(self._request)

    async def _pump(self, reader: Reader, *, events: bool) -> web.StreamResponse:
        """Everything that comes. The reader's own connection holds it back, and nobody else."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_seconds if events else None):
                    batch = await anext(reader, None)
            except TimeoutError:
                await self.response.write(f": {self._answer.phase}\n\n".encode())
                continue
            if batch is None:
                break
            await self.response.write(self._as_events(batch) if events else _lines(batch))
        await self._close(events=events)
        return self.response

    async def _close(self, *, events: bool) -> None:
        answer = self._answer
        if answer.error is not None and events and (answer.head is None or answer.head.framing is Framing.SINGLE):
            await self.response.write(_error_event(_body(answer.error, answer)))
        elif answer.aborted:
            if self._request.transport is not None:
                self._request.transport.abort()  # how the caller would have learnt that it is not whole
            return
        await self.response.write_eof()

    def _as_events(self, batch: Batch) -> bytes:
        head = self._answer.head
        assert head is not None
        parts = [_gone_event(batch)] if batch.gone else []
        for number, chunk in enumerate(batch.chunks, batch.at):
            if head.framing is Framing.SSE:
                parts.append(b"id: %d\n%b" % (number, chunk))
            elif head.status >= 400:
                parts.append(_error_event(chunk))
            else:
                parts.append(b"id: %d\n%b\n" % (number, _data(chunk)))
        return b"".join(parts)


def _lines(batch: Batch) -> bytes:
    told = compact({"gone": _gone(batch)}) + b"\n" if batch.gone else b""
    return told + b"".join(batch.chunks)


def _gone(batch: Batch) -> dict[str, int]:
    return {"from": batch.at - batch.gone, "to": batch.at - 1}


def _gone_event(batch: Batch) -> bytes:
    return b"id: %d\nevent: gone\ndata: %b\n\n" % (batch.at - 1, compact(_gone(batch)))


def _error_event(body: bytes) -> bytes:
    return b"event: error\n%b\n" % _data(body)


def _data(text: bytes) -> bytes:
    """One line of an event for each line of the text."""
    return b"".join(b"data: %b\n" % line for line in text.splitlines() or [b""])


def _body(error: CorralError, answer: Chunks) -> bytes:
    return answer.endpoint.error(error.status, error.message, error.code, answer.id)
