"""Traces on their way to a collector: chosen at a generation's end, gathered on the loop, put into spans and sent by a thread.

A collector that is slow or dead costs spans, which are counted, and nothing else: no stream waits, and no shutdown longer than CLOSE_SECONDS.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway.config import TracingConfig
from gateway.dialects.request import InferenceRequest
from gateway.fleet.poller import PollNews
from gateway.record import GenerationRecord, Refusal, Trace
from gateway.telemetry.content import Content
from gateway.telemetry.incidents import polled, refused
from gateway.telemetry.sampling import Sampling
from gateway.telemetry.spans import Finished, Span, spans_of

TRACES_LIMIT = 4096  # that wait to be sent, with those that the thread has
BODIES_LIMIT_BYTES = 8 * 1024 * 1024  # of the requests and answers of a batch, and
BODY_MOST_BYTES = 256 * 1024  # of one request
BATCHES_MOST = 4  # with the thread
BATCH_TRACES = 256
EVERY_SECONDS = 1.0
CLOSE_SECONDS = 1.0
log = logging.getLogger(__name__)


class Exporter(Protocol):
    """Where spans go (``otlp.py``). ``why``: what was wrong last."""

    @property
    def why(self) -> str:
        """See above."""

    def export(self, spans: Sequence[Span]) -> bool:
        """Send, in the calling thread; whether they arrived."""

    def close(self) -> None:
        """Give up what is under way."""

    def unhush(self) -> None:
        """Nothing more is exported."""


class Tracer:
    """Takes in what ended. ``url_of`` a host, by its name; ``dropped(reason, spans)`` is told, on the loop, of spans that are lost:
    ``over_limit`` (``tracing.per_second``), ``queue_full``, ``export_failed``.
    """

    def __init__(
        self,
        config: TracingConfig,
        exporter: Exporter,
        loop: asyncio.AbstractEventLoop,
        url_of: Callable[[str], str],
        dropped: Callable[[str, int], None],
    ) -> None:
        self._sampling = Sampling(config, loop.time())
        self._content = Content(config.content_bytes, config.redact) if config.capture_content else None
        self._exporter = exporter
        self._url = config.url
        self._loop = loop
        self._url_of = url_of
        self._dropped = dropped
        self._pending: list[Finished | Span] = []
        self._held = 0
        self._handed = 0  # to the thread, which has not sent them yet
        self._batches: queue.SimpleQueue[list[Finished | Span] | None] = queue.SimpleQueue()
        self._arriving = True
        self._lost = 0
        self._done = loop.create_future()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    @property
    def said_bytes(self) -> int:
        """How much of each answer has to be remembered; 0: nothing."""
        return self._content.said_bytes if self._content is not None else 0

    def why(self, record: GenerationRecord, *, sampled: bool) -> str:
        """Why a trace is kept; empty: it is not. Then ``put`` it."""
        why, over_limit = self._sampling.why(record, self._loop.time(), sampled=sampled)
        if over_limit:
            self._dropped("over_limit", 1 + len(record.attempts))
        return why

    def put(self, record: GenerationRecord, request: InferenceRequest, why: str, tail: bytes, said: bytes) -> None:
        """A trace that is kept, to be sent soon. ``tail`` is the answer's end, ``said`` its beginning."""
        if self._full:
            self._dropped("queue_full", 1 + len(record.attempts))
            return
        size = len(request.body) + len(said)
        if len(request.body) > BODY_MOST_BYTES or self._held + size > BODIES_LIMIT_BYTES:
            request, said, size = msgspec.structs.replace(request, body=b""), b"", 0
        self._held += size
        hosts = {attempt.host: self._url_of(attempt.host) for attempt in record.attempts}
        self._add(Finished(record, request, why, hosts, tail, said))

    def refused(self, refusal: Refusal) -> None:
        """A request that ended before it was a generation, if it is kept."""
        otherwise = "sampled" if refusal.trace.sampled else ""
        if why := self._alone(error=refusal.status >= 500, otherwise=otherwise):
            self._add(refused(refusal, why))

    def polled(self, news: PollNews, trace: Trace) -> None:
        """A poll that went otherwise than the last one, if it is kept."""
        if why := self._alone(error=bool(news.reason), otherwise="recovered"):
            self._add(polled(news, trace, why))

    def _alone(self, *, error: bool, otherwise: str) -> str:
        """Why a span that stands alone is kept; empty: it is not."""
        why, over_limit = self._sampling.why_alone(self._loop.time(), error=error, otherwise=otherwise)
        if over_limit or (why and self._full):
            self._dropped("over_limit" if over_limit else "queue_full", 1)
            return ""
        return why

    @property
    def _full(self) -> bool:
        return len(self._pending) + self._handed >= TRACES_LIMIT

    def _add(self, one: Finished | Span) -> None:
        self._pending.append(one)
        if len(self._pending) == 1:
            self._loop.call_later(EVERY_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand what is gathered to the thread, unless it is far behind: then hold it back, up to the limit."""
        if not self._pending:
            return
        if self._batches.qsize() < BATCHES_MOST:
            self._handed += len(self._pending)
            self._batches.put(self._pending)
            self._pending, self._held = [], 0
        else:
            self._loop.call_later(EVERY_SECONDS, self.flush)

    async def close(self) -> None:
        """Send what is left, for at most CLOSE_SECONDS; where nothing arrives, try no more."""
        if self._pending:
            self._handed += len(self._pending)
            self._batches.put(self._pending)
            self._pending = []
        self._batches.put(None)
        if dead := not self._arriving:
            self._exporter.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._done
        except TimeoutError:
            log.warning("stopped before all spans were sent to %s", self._url)
        if not dead:
            self._exporter.close()

    # -- the thread ------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            for start in range(0, len(batch), BATCH_TRACES):
                self._send(batch[start : start + BATCH_TRACES])
        self._exporter.unhush()
        self._tell(self._end)

    def _send(self, batch: list[Finished | Span]) -> None:
        spans: list[Span] = []
        for one in batch:
            if isinstance(one, Span):
                spans.append(one)
                continue
            try:
                spans += spans_of(one, self._content)
            except Exception:  # the traces' supervisor: one that cannot be put into spans must not cost the others
                log.exception("the trace of %s was lost", one.record.id)
        arrived = self._exporter.export(spans)
        self._tell(self._sent, arrived, len(batch), len(spans), self._exporter.why)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: the process did not wait for a slow collector
            return

    # -- on the loop again -----------------------------------------------------------------------------------------------------

    def _sent(self, arrived: bool, traces: int, spans: int, why: str) -> None:
        self._handed -= traces
        if not arrived:
            self._lost += spans
            self._dropped("export_failed", spans)
        if arrived and not self._arriving:
            log.info("spans arrive at %s again; %d were lost", self._url, self._lost)
            self._lost = 0
        elif self._arriving and not arrived:
            log.warning("spans do not arrive at %s: %s", self._url, why)
        self._arriving = arrived

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
