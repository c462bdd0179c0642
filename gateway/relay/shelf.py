"""What is kept for readers, as long as it is: all that runs detached, and the last that ended. Bounded in bytes, number and time; what nobody
reads can be stopped (``orphan_seconds``)."""

import asyncio
from collections.abc import Callable, Iterator

from gateway.config import GenerationsConfig
from gateway.record import CancelSource
from gateway.relay.chunks import Chunks

Stop = Callable[[CancelSource, str], object]


class Shelf:
    """``clock``: monotonic seconds; ``dropped`` is told how many chunks of something were too much."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        config: GenerationsConfig,
        dropped: Callable[[float], None],
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.limit_bytes = config.answer_bytes
        self._config = config
        self._dropped = dropped
        self._running: dict[str, tuple[Chunks, Stop]] = {}
        self._ended: dict[str, Chunks] = {}  # oldest end first
        self._erased: set[str] = set()  # ids of those that nobody new may read, and that go with their last reader
        self._orphans: dict[str, asyncio.TimerHandle] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self.size = 0  # bytes held
        self.readers = 0

    def __repr__(self) -> str:
        return f"<Shelf [{len(self._running)} running, {len(self._ended)} ended, {self.size} bytes]>"

    def __iter__(self) -> Iterator[Chunks]:
        """All that can be read, those that ended first."""
        return iter((*self._ended.values(), *(chunks for chunks, _ in self._running.values())))

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    @property
    def running(self) -> int:
        """How many have not ended."""
        return len(self._running)

    def ended(self) -> Iterator[Chunks]:
        """Those that ended and can still be read, oldest first."""
        return iter([chunks for chunks in self._ended.values() if chunks.id not in self._erased])

    def get(self, id_: str) -> Chunks | None:
        """What has this id, if it can be read."""
        if id_ in self._erased:
            return None
        running = self._running.get(id_)
        return running[0] if running is not None else self._ended.get(id_)

    def put(self, chunks: Chunks, stop: Stop) -> None:
        """They begin. ``stop`` ends them, where nobody reads."""
        self._running[chunks.id] = (chunks, stop)
        self._watch(chunks)

    def ends(self, chunks: Chunks, *, keep: bool = True) -> None:
        """They have ended."""
        del self._running[chunks.id]
        self._unwatch(chunks)
        if chunks.first:
            self._dropped(chunks.first)
        if keep:
            self._ended[chunks.id] = chunks
            self._tidy()
        else:
            self.hold(chunks, -chunks.size)
        self._go(chunks)

    def erase(self, session: str) -> None:
        """Nobody new may read what belongs to it. What nobody reads is forgotten, once it has ended."""
        running = [chunks for chunks, _ in self._running.values()]
        for chunks in [*running, *self._ended.values()]:
            if chunks.session == session:
                self._erased.add(chunks.id)
                self._go(chunks)

    def _go(self, chunks: Chunks) -> None:
        if chunks.id in self._erased and chunks.id not in self._running:
            if chunks.id not in self._ended:
                self._erased.discard(chunks.id)
            elif not chunks.readers:
                self._forget(chunks)

    async def idle(self) -> None:
        """Wait until nobody reads. One caller at a time: the shutdown."""
        while self.readers:
            self._idle = self.loop.create_future()
            await self._idle

    def close(self) -> None:
        """Forget all; no timer is left."""
        for timer in (*self._orphans.values(), self._tidying):
            if timer is not None:
                timer.cancel()
        self._orphans.clear()
        for chunks in tuple(self._ended.values()):
            self._forget(chunks)

    # -- what is held ----------------------------------------------------------------------------------------------------------

    def hold(self, _chunks: Chunks, size: int) -> int:
        """They grew by ``size`` bytes, or shrank; how many are too much now, after ended ones that nobody reads have gone."""
        self.size += size
        if size > 0 and self.size > self._config.held_bytes:
            for ended in self.ended():
                if self.size <= self._config.held_bytes:
                    break
                if not ended.readers:
                    self._forget(ended)
        return self.size - self._config.held_bytes

    def _tidy(self) -> None:
        """Forget what ended too long ago, or is too many; not while somebody reads it."""
        config, now = self._config, self.clock()
        surplus = len(self._ended) - config.keep_count
        oldest: float | None = None
        for chunks in self.ended():
            assert chunks.ended is not None
            if chunks.readers:
                continue
            if surplus > 0 or now - chunks.ended >= config.keep_seconds:
                self._forget(chunks)
                surplus -= 1
            else:  # the others ended later
                oldest = chunks.ended
                break
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        if oldest is not None:
            left = max(0.0, oldest + config.keep_seconds - now)
            self._tidying = self.loop.call_later(left, self._tidy)

    def _forget(self, chunks: Chunks) -> None:
        del self._ended[chunks.id]
        self._erased.discard(chunks.id)
        chunks.forget()

    # -- readers ---------------------------------------------------------------------------------------------------------------

    def attend(self, chunks: Chunks, change: int) -> None:
        """Readers came or went."""
        self.readers += change
        if not self.readers and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if chunks.ended is None:
            self._unwatch(chunks)
            self._watch(chunks)
        elif not chunks.readers:
            self._tidy()
            self._go(chunks)

    def _watch(self, chunks: Chunks) -> None:
        """Stop it if nobody comes to read it."""
        seconds, running = self._config.orphan_seconds, self._running.get(chunks.id)
        if seconds and not chunks.readers and running is not None:
            why = f"nobody read it for {seconds:g} s"
            self._orphans[chunks.id] = self.loop.call_later(seconds, running[1], CancelSource.ORPHAN, why)

    def _unwatch(self, chunks: Chunks) -> None:
        timer = self._orphans.pop(chunks.id, None)
        if timer is not None:
            timer.cancel()
