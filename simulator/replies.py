"""Answers over HTTP as Go's server frames them, and the ways in which a connection can break."""

import socket
import struct
from collections.abc import Mapping

from aiohttp import web

from simulator.dialects.inference import Body

_BUFFER = 2048
"""Go's server counts the bytes of an answer up to this size, and sends a larger one chunked."""


async def reply(
    request: web.Request, status: int, body: Body | None = None, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """A whole answer; without a body it has no Content-Type either."""
    every = dict(headers or {})
    if body is None:
        return web.Response(status=status, headers=every)
    every["Content-Type"] = body.media_type
    if len(body.data) <= _BUFFER:
        return web.Response(status=status, body=body.data, headers=every)
    stream = Stream(request, body.media_type, every, status)
    await stream.write(body.data)
    return await stream.end()


class Stream:
    """An answer sent chunk by chunk. The head goes out with the first chunk, as Ollama's does."""

    def __init__(
        self, request: web.Request, media_type: str, headers: Mapping[str, str] | None = None, status: int = 200
    ) -> None:
        self._request = request
        self._response = web.StreamResponse(status=status, headers={**(headers or {}), "Content-Type": media_type})
        if request.version >= (1, 1):
            self._response.enable_chunked_encoding()

    async def write(self, chunk: bytes) -> None:
        """Send one HTTP chunk."""
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write(chunk)

    async def end(self) -> web.StreamResponse:
        """End it well: the handler returns what this returns."""
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write_eof()
        return self._response

    def abandoned(self) -> web.StreamResponse:
        """What a handler returns once the connection below has been broken."""
        return self._response


def reset(request: web.Request) -> None:
    """End the connection with RST."""
    if (transport := request.transport) is not None:
        linger_none(transport.get_extra_info("socket"))
        transport.abort()


def close(request: web.Request) -> None:
    """End the connection with FIN, after what has been written."""
    if (transport := request.transport) is not None:
        transport.close()


def raw(request: web.Request, data: bytes) -> None:
    """Write bytes past HTTP, then close."""
    if (transport := request.transport) is not None:
        transport.write(data)
        transport.close()


def linger_none(sock: socket.socket) -> None:
    """Make the close of a socket an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
