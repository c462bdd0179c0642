"""Callers' bodies: read whole, and bounded in all, as a hundred large ones at once would take a small machine's memory.

Counted is what has come of a body that is larger than SMALL_BYTES, from then until its request is done with it. Small ones cost nothing here: how
many there are is bounded by connections. What is announced and has not come does not count: to announce would be to keep others out for nothing.
"""

import asyncio

from aiohttp import web

from gateway.errors import BodiesFull, NotHttp, TooLarge

SMALL_BYTES = 64 * 1024
AGAIN_SECONDS = 1.0


class Bodies:
    """What requests hold, at most ``most_bytes``; one alone may always have its own. ``of``: bytes by a request's id(): they cannot be hashed, and live as long
    as they are in here."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self.of: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Bodies of {len(self.of)} requests, {self._bytes} bytes>"

    def hold(self, request: web.BaseRequest, size: int) -> None:
        """``request`` has so many bytes now, more than before. Raises BodiesFull."""
        before = self.of.get(id(request), 0)
        others = self._bytes - before
        if others and others + size > self._most_bytes:
            raise BodiesFull(
                f"bodies of other requests hold {others} of {self._most_bytes} bytes (relay.bodies_bytes)",
                retry_after=AGAIN_SECONDS,
            )
        self.of[id(request)] = size
        self._bytes = others + size

    def let_go(self, request: web.BaseRequest) -> None:
        """It is done with its body, if it has a large one."""
        self._bytes -= self.of.pop(id(request), 0)

    def hold_until_done(self, request: web.BaseRequest, task: "asyncio.Task[None]") -> None:
        """Its body goes on to a task that outlasts it."""
        if size := self.of.pop(id(request), 0):
            task.add_done_callback(lambda _: self._give(size))

    def _give(self, size: int) -> None:
        self._bytes -= size


BODIES = web.RequestKey("bodies", Bodies)


async def read_body(request: web.Request, limit_bytes: int, bodies: Bodies | None = None) -> bytes:
    """The whole body; ``bodies``: those of the request's gateway. Raises TooLarge, BodiesFull, TooSlow, NotHttp."""
    if (request.content_length or 0) > limit_bytes:  # nobody has to send it
        raise TooLarge(f"the body is over {limit_bytes} bytes")
    bodies = bodies or request[BODIES]
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > limit_bytes:
                raise TooLarge(f"the body is over {limit_bytes} bytes")
            if len(body) > SMALL_BYTES:
                bodies.hold(request, len(body))
    except web.RequestPayloadError:
        raise NotHttp("the body is not framed as its head says") from None
    return bytes(body)
