"""An answer whose beginning is remembered on its way, for who wants it in spans (``tracing.capture_content``)."""

from collections.abc import Callable

from gateway.dialects.lines import Framing
from gateway.relay.exchange import Sink
from gateway.relay.generations import Generation
from gateway.relay.headers import RawHeaders


class Overheard:
    """A Sink over another one. At most ``limit_bytes`` are remembered, in the generation."""

    def __init__(self, sink: Sink, generation: Generation, limit_bytes: int) -> None:
        self._sink = sink
        self._generation = generation
        self._limit_bytes = limit_bytes
        self._heard: list[bytes] = []
        self._size = 0
        self.started = False

    @property
    def buffered(self) -> bool:
        """What the caller has still to take."""
        return self._sink.buffered

    @property
    def raw(self) -> tuple[Callable[[bytes], None], Callable[[], int]] | None:
        """Never: what is remembered has to be seen."""
        return None

    def begin(self, status: int, headers: RawHeaders, framing: Framing, host: str) -> None:
        """Pass the head on."""
        self._sink.begin(status, headers, framing, host)

    def write(self, data: bytes, last: bool = False) -> bool:
        """Remember, then send. Raises ClientGone."""
        self.started = True
        if self._size < self._limit_bytes:
            self._heard.append(data[: self._limit_bytes - self._size])
            self._size += len(self._heard[-1])
        return self._sink.write(data, last)

    async def drain(self) -> None:
        """Wait for the caller."""
        await self._sink.drain()

    async def flush(self) -> None:
        """Wait for the caller."""
        await self._sink.flush()

    def abort(self) -> None:
        """Break it off."""
        self._sink.abort()

    def settle(self) -> None:
        """Leave what was heard with the generation."""
        self._generation.said = b"".join(self._heard)
