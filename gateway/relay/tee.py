"""An answer that goes to its caller as ever, and is kept besides, for whoever records it."""

from collections.abc import Callable

from gateway.dialects.lines import Framing
from gateway.relay.exchange import Sink
from gateway.relay.headers import RawHeaders
from gateway.relay.kept import KeptAnswer


class Tee:
    """A Sink over another one. The kept answer never holds anything up; ``kept`` None: nobody wants it any more."""

    def __init__(self, sink: Sink, kept: KeptAnswer) -> None:
        self._sink = sink
        self.kept: KeptAnswer | None = kept
        self.started = False

    @property
    def buffered(self) -> bool:
        """What the caller has still to take."""
        return self._sink.buffered

    @property
    def raw(self) -> tuple[Callable[[bytes], None], Callable[[], int]] | None:
        """Never: what is kept has to be seen."""
        return None

    def begin(self, status: int, headers: RawHeaders, framing: Framing, host: str) -> None:
        """To both."""
        self._sink.begin(status, headers, framing, host)
        if self.kept is not None:
            self.kept.begin(status, headers, framing, host)

    def write(self, data: bytes, last: bool = False) -> bool:
        """Keep, then send. Raises ClientGone."""
        self.started = True
        if self.kept is not None:
            self.kept.write(data, last)
        return self._sink.write(data, last)

    async def drain(self) -> None:
        """Wait for the caller alone."""
        await self._sink.drain()

    async def flush(self) -> None:
        """Wait for the caller alone."""
        await self._sink.flush()

    def abort(self) -> None:
        """To both."""
        self._sink.abort()
        if self.kept is not None:
            self.kept.abort()
