"""Prometheus metrics. Counters and histograms are fed by finished records; gauges of live state are read at scrape time.

Labels are bounded: a model is named only while some host has it, a
host by its configured name, everything else by an enum.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from gateway.fleet.jobs import BLOB, Job
from gateway.fleet.residence import Load, Unload
from gateway.record import AttemptOutcome, GenerationRecord, Outcome
from gateway.telemetry.catalogue import OTHER, REJECTED, UNKNOWN_MODEL, Catalogue
from gateway.telemetry.families import Counter, Family, Histogram, Reading
from gateway.telemetry.gauges import Live, read
from gateway.telemetry.genai import GenAi
from gateway.telemetry.series import Series

_OK: Final = Outcome.OK
_ATTEMPT_OK: Final = AttemptOutcome.OK

MODEL_LABELS_LIMIT, HOST_LABELS_LIMIT = 200, 256
NO_HOST: Final = ""
PIECE: Final = 60  # label sets that are put into words at a time: histograms take some 5 us each


class Metrics(Catalogue):
    """The catalogue in use. ``live`` is called on the event loop at each scrape."""

    def __init__(
        self, live: Callable[[], Live], known_model: Callable[[str], bool], *, genai_semconv: bool = False
    ) -> None:
        super().__init__()
        self._live = live
        self._known_model = known_model
        self._genai = GenAi() if genai_semconv else None
        self._models: set[str] = set()
        self._hosts = {NO_HOST: NO_HOST}
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self._responded: dict[tuple[str, int], Counter] = {}
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    # -- sinks -----------------------------------------------------------------------------------------------------------------

    def observe(self, record: GenerationRecord) -> None:
        """Count one finished generation."""
        model = self.model_label(record.model, answered=record.outcome is _OK)
        host = self.host_label(record.host or NO_HOST)
        key = (record.operation, model, record.outcome, host)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(self, self.host_label, *key)
        trace = record.trace_id if record.trace_kept else ""  # an exemplar whose trace is not there is a dead link
        series.observe(record, trace)
        attempts = record.attempts
        for attempt in attempts:
            if attempt.outcome is not _ATTEMPT_OK or attempt is not attempts[-1]:
                where = self.host_label(attempt.host)
                self.attempts.labels(where, attempt.outcome).inc()
                self.attempt_duration.labels(where, attempt.outcome).observe(attempt.seconds)
                if attempt is not attempts[-1]:
                    self.retries.labels(where, attempt.outcome).inc()
        if record.outcome is not _OK:
            self._observe_failure(record, model, host)
        if self._genai is not None:
            self._genai.observe(record, model)

    def _observe_failure(self, record: GenerationRecord, model: str, host: str) -> None:
        if record.outcome is Outcome.NO_HOST or (
            record.outcome is Outcome.CLIENT_ERROR and not record.attempts and record.status == 404
        ):
            self.no_route.labels("no_host" if record.outcome is Outcome.NO_HOST else "unknown_model").inc()
        if record.outcome is Outcome.UPSTREAM_ERROR and record.attempts and record.status >= 400:
            self.exhausted.labels(model).inc()
        if record.cancelled_by is not None:
            self._observe_cancellation(record, model, host)
        elif record.outcome is Outcome.UPSTREAM_ERROR and record.usage.output_tokens:
            self.wasted.labels(model, host, "failed").inc(record.usage.output_tokens)

    def _observe_cancellation(self, record: GenerationRecord, model: str, host: str) -> None:
        assert record.cancelled_by is not None
        self.cancellations.labels(record.cancelled_by, record.phase).inc()
        if record.cancel_seconds is not None:
            self.propagation.labels().observe(record.cancel_seconds)
        if record.usage.output_tokens:
            self.wasted.labels(model, host, "cancelled").inc(record.usage.output_tokens)

    def job_ended(self, job: Job) -> None:
        """Count one job."""
        assert job.outcome is not None
        self.jobs.labels(job.kind, job.outcome).inc()
        self.job_duration.labels(job.kind).observe(job.seconds(0.0))
        if job.kind == BLOB:
            for host, part in job.parts.items():
                self.blob_bytes.labels(self.host_label(host)).inc(part.completed)

    def responded(self, route: str, status: int) -> None:
        """Count one HTTP response."""
        child = self._responded.get((route, status))
        if child is None:
            child = self._responded[route, status] = self.responses.labels(route, str(status))
        child.inc()

    def refused(self, code: str) -> None:
        """Count one request that ended in an error with this code, if it was refused before routing."""
        reason = "draining" if code == "shutting_down" else code
        if reason in REJECTED:
            self.rejected.labels(reason).inc()

    def limit_refused(self, limit: str) -> None:
        """Count one request that a limit or a budget of its key refused."""
        self.limited.labels(limit).inc()

    def turned_away(self, code: str) -> None:
        """Count one connection or request that was ended at the door."""
        self.at_the_door.labels(code).inc()

    def polled(self, host: str, seconds: float) -> None:
        """A poll succeeded."""
        self.poll_duration.labels(self.host_label(host)).observe(seconds)

    def poll_failed(self, host: str, endpoint: str, reason: str) -> None:
        """A call of a poll failed."""
        self.poll_errors.labels(self.host_label(host), endpoint, reason).inc()

    def moved(self, change: Load | Unload) -> None:
        """A model came into a host's memory, or left it."""
        host = self.host_label(change.host)
        if isinstance(change, Load):
            self.loads.labels(host, self.model_label(change.model), change.trigger).inc()
        else:
            self.unloads.labels(host, change.reason).inc()
            if change.cause is not None:
                self.reloads.labels(change.cause).inc()

    # -- labels ----------------------------------------------------------------------------------------------------------------

    def model_label(self, model: str, *, answered: bool = False) -> str:
        """The label for a canonical name: itself only if a host has it, or has ``answered`` with it, at most MODEL_LABELS_LIMIT of them."""
        if model in self._models:
            return model
        if not answered and not self._known_model(model):
            return UNKNOWN_MODEL
        if len(self._models) >= MODEL_LABELS_LIMIT:
            self.label_overflow.labels("model").inc()
            return OTHER
        self._models.add(model)
        return model

    def host_label(self, host: str) -> str:
        """The label for a host: its configured name, of the first HOST_LABELS_LIMIT that there were."""
        label = self._hosts.get(host)
        if label is None:
            if len(self._hosts) > HOST_LABELS_LIMIT:
                self.label_overflow.labels("host").inc()
                return OTHER
            label = self._hosts[host] = host
            self.expect_host(host)
        return label

    # -- scraping --------------------------------------------------------------------------------------------------------------

    def render(self, *, openmetrics: bool = False) -> bytes:
        """The exposition in Prometheus' text format, or in OpenMetrics, which has exemplars."""
        return b"".join(self.pieces(openmetrics=openmetrics))

    def pieces(self, *, openmetrics: bool = False) -> Iterator[bytes]:
        """The same in pieces, each of whole families as they are when it is made: who takes them can let others run in between."""
        live = self._live()
        for view in live.fleet.hosts:
            self.host_label(view.name)
        out: list[str] = []
        waiting = 0
        for family in self._declared(live):
            before = len(out)
            family.write(out, openmetrics)
            waiting += len(out) - before
            if waiting >= PIECE:
                yield "".join(out).encode()
                out, waiting = [], 0
        rest = openmetrics_exposition.generate_latest if openmetrics else generate_latest
        yield "".join(out).encode() + rest(self._process)

    def declared(self) -> Iterable[Family[Counter] | Family[Histogram] | Reading]:
        """Every family there is, whether or not it has values yet."""
        return self._declared(self._live())

    def _declared(self, live: Live) -> Iterable[Family[Counter] | Family[Histogram] | Reading]:
        return chain(self.families(), read(live), self._genai.families() if self._genai else ())
