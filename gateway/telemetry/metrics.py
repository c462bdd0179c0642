"""Prometheus metrics. Counters and histograms are fed by finished records; gauges of live state are read at scrape time.

Labels are bounded: a model is named only while some host has it, a
host by its configured name, everything else by an enum.
"""

from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from gateway.config import PlacementConfig
from gateway.fleet.health import State
from gateway.fleet.host import FleetSnapshot
from gateway.fleet.hygiene import FindingKind, findings
from gateway.fleet.jobs import BLOB, Job
from gateway.record import Accounting, AttemptOutcome, GenerationRecord, Outcome
from gateway.telemetry.catalogue import REJECTED, Catalogue
from gateway.telemetry.families import Counter, gauge_lines

MODEL_LABELS_LIMIT = 200
UNKNOWN_MODEL, OTHER_MODEL, NO_HOST = "_unknown", "_other", ""
_BEGAN = (AttemptOutcome.OK, AttemptOutcome.MIDSTREAM_ERROR)


class Kept(NamedTuple):
    """Detached generations that run, those that ended and can be read, the bytes that are held of their answers, and who reads them."""

    running: int
    ended: int
    size: int
    readers: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The database and the records that wait for it. ``written_at``: Unix seconds of the last batch, ``oldest_at`` of the oldest row."""

    up: bool
    queued: int
    queue_limit: int
    written_at: float | None
    oldest_at: float | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Live:
    """The live state at one moment. ``wall``: Unix seconds of ``fleet.taken_at``; ``queued``: model → waiting; ``in_flight``: (host, model) → running;
    ``jobs``: kind → running."""

    fleet: FleetSnapshot
    placement: Sequence[PlacementConfig]
    wall: float
    queued: dict[str, int]
    queue_limit: int
    oldest_seconds: float
    in_flight: dict[tuple[str, str], int]
    jobs: dict[str, int]
    kept: Kept
    version: str
    build: str
    store: Stored | None = None


class Metrics(Catalogue):
    """The catalogue in use. ``live`` is called on the event loop at each scrape."""

    def __init__(self, live: Callable[[], Live], known_model: Callable[[str], bool]) -> None:
        super().__init__()
        self._live = live
        self._known_model = known_model
        self._models: set[str] = set()
        self._series: dict[tuple[str, str, str, str], _Series] = {}
        self._responded: dict[tuple[str, int], Counter] = {}
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    # -- sinks -----------------------------------------------------------------------------------------------------------------

    def observe(self, record: GenerationRecord) -> None:
        """Count one finished generation."""
        model = self.model_label(record.model, answered=record.outcome is Outcome.OK)
        host = record.host or NO_HOST
        key = (record.operation, model, record.outcome, host)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self, *key)
        series.observe(record)
        for attempt in record.attempts:
            if attempt.outcome is not AttemptOutcome.OK or attempt.host != host:
                self.attempts.labels(attempt.host, attempt.outcome).inc()
                self.attempt_duration.labels(attempt.host, attempt.outcome).observe(attempt.seconds)
        for attempt in record.attempts[:-1]:
            self.retries.labels(attempt.host, attempt.outcome).inc()
        if record.outcome is Outcome.NO_HOST or (
            record.outcome is Outcome.CLIENT_ERROR and not record.attempts and record.status == 404
        ):
            self.no_route.labels("no_host" if record.outcome is Outcome.NO_HOST else "unknown_model").inc()
        if record.outcome is Outcome.UPSTREAM_ERROR and record.attempts and record.attempts[-1].outcome not in _BEGAN:
            self.exhausted.labels(model).inc()
        if record.cancelled_by is not None:
            self._observe_cancellation(record, model, host)
        elif record.outcome is Outcome.UPSTREAM_ERROR and record.usage.output_tokens:
            self.wasted.labels(model, host, "failed").inc(record.usage.output_tokens)
        if record.cold and record.ttft_seconds is not None:
            self.loads.labels(host, model, "request").inc()
            if record.usage.load_seconds:
                self.load_duration.labels(host).observe(record.usage.load_seconds)

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
                self.blob_bytes.labels(host).inc(part.completed)

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

    def polled(self, host: str, seconds: float) -> None:
        """A poll succeeded."""
        self.poll_duration.labels(host).observe(seconds)

    def poll_failed(self, host: str, endpoint: str, reason: str) -> None:
        """A call of a poll failed."""
        self.poll_errors.labels(host, endpoint, reason).inc()

    def model_label(self, model: str, *, answered: bool = False) -> str:
        """The label for a canonical name: itself only if a host has it, or has ``answered`` with it, at most MODEL_LABELS_LIMIT of them."""
        if model in self._models:
            return model
        if not answered and not self._known_model(model):
            return UNKNOWN_MODEL
        if len(self._models) >= MODEL_LABELS_LIMIT:
            self.label_overflow.labels("model").inc()
            return OTHER_MODEL
        self._models.add(model)
        return model

    # -- scraping --------------------------------------------------------------------------------------------------------------

    def render(self) -> bytes:
        """The exposition in Prometheus' text format."""
        live = self._live()
        lines = chain(
            chain.from_iterable(family.lines() for family in self.families()),
            _queue_lines(live),
            _host_lines(live),
            _model_lines(live.fleet),
            _store_lines(live.store),
        )
        return "".join(lines).encode() + generate_latest(self._process)


class _Series:
    """The children that one kind of request touches, looked up once."""

    def __init__(self, metrics: Metrics, operation: str, model: str, outcome: str, host: str) -> None:
        self._metrics = metrics
        self._model, self._host = model, host
        self._requests = metrics.requests.labels(operation, model, outcome)
        self._duration = metrics.duration.labels(operation, model, outcome)
        self._overhead = metrics.overhead.labels(operation)
        self._wait = metrics.queue_wait.labels(model, _wait_outcome(outcome, host))
        self._decisions: dict[str, Counter] = {}
        self._excluded: dict[tuple[str, str], Counter] = {}
        if host:
            self._ok = metrics.attempts.labels(host, AttemptOutcome.OK)
            self._ok_duration = metrics.attempt_duration.labels(host, AttemptOutcome.OK)
            self._ttft = metrics.ttft.labels(model, host)
            self._tpot = metrics.tpot.labels(model, host)
            self._gap = metrics.gap.labels(model, host)
            self._tokens = {
                (kind, accounting): metrics.tokens.labels(model, host, kind, accounting)
                for kind in ("input", "output")
                for accounting in Accounting
            }
            self._eval = {
                phase: metrics.eval_seconds.labels(model, host, phase) for phase in ("load", "prompt_eval", "eval")
            }

    def observe(self, record: GenerationRecord) -> None:
        self._requests.inc()
        self._duration.observe(record.duration_seconds)
        self._overhead.observe(record.overhead_seconds)
        self._wait.observe(record.queue_seconds)
        if record.route is not None:
            self._observe_route(record)
        if not record.attempts:
            return
        last = record.attempts[-1]
        if last.outcome is AttemptOutcome.OK:
            self._ok.inc()
            self._ok_duration.observe(last.seconds)
        if record.stream and (ttft := record.ttft_seconds) is not None:
            self._ttft.observe(ttft)
            self._gap.observe(record.max_gap_seconds)
            if (tpot := record.seconds_per_output_token) is not None:
                self._tpot.observe(tpot)
        usage = record.usage
        if usage.input_tokens:
            self._tokens["input", usage.accounting].inc(usage.input_tokens)
        if usage.output_tokens:
            self._tokens["output", usage.accounting].inc(usage.output_tokens)
        if usage.accounting is Accounting.REPORTED:
            self._eval["load"].inc(usage.load_seconds)
            self._eval["prompt_eval"].inc(usage.prefill_seconds)
            self._eval["eval"].inc(usage.decode_seconds)

    def _observe_route(self, record: GenerationRecord) -> None:
        assert record.route is not None
        reason = record.route.reason
        decision = self._decisions.get(reason)
        if decision is None:
            decision = self._decisions[reason] = self._metrics.decisions.labels(record.route.host, reason)
        decision.inc()
        for left_out in record.route.rejected:
            key = (left_out.host, left_out.code)
            excluded = self._excluded.get(key)
            if excluded is None:
                excluded = self._excluded[key] = self._metrics.excluded.labels(*key)
            excluded.inc()


def _wait_outcome(outcome: str, host: str) -> str:
    if host:
        return "admitted"
    return {"cancelled": "cancelled", "timeout": "timeout"}.get(outcome, "refused")


def _queue_lines(live: Live) -> Iterator[str]:
    yield from gauge_lines(
        "corral_requests_in_flight", "Requests now being served by a host.", ("host", "model"), live.in_flight.items()
    )
    queued = (((model,), count) for model, count in live.queued.items())
    yield from gauge_lines("corral_queue_depth", "Requests waiting for a slot.", ("model",), queued)
    yield from gauge_lines("corral_queue_limit", "Most requests that may wait.", (), [((), live.queue_limit)])
    yield from gauge_lines(
        "corral_queue_oldest_seconds", "Age of the oldest waiting request.", (), [((), live.oldest_seconds)]
    )
    jobs = (((kind,), count) for kind, count in live.jobs.items())
    yield from gauge_lines("corral_jobs_in_flight", "Jobs that change models now.", ("kind",), jobs)
    kept = live.kept
    states = ((("running",), kept.running), (("ended",), kept.ended))
    yield from gauge_lines(
        "corral_detached_generations", "Detached generations whose answers can be read.", ("state",), states
    )
    yield from gauge_lines("corral_detached_held_bytes", "Bytes held of their answers.", (), [((), kept.size)])
    yield from gauge_lines("corral_detached_readers", "Readers of their answers now.", (), [((), kept.readers)])
    yield from gauge_lines(
        "corral_build_info",
        "Constant 1; build facts as labels.",
        ("version", "build"),
        [((live.version, live.build), 1)],
    )


def _host_lines(live: Live) -> Iterator[str]:
    fleet = live.fleet
    hosts = fleet.hosts
    polled = [host for host in hosts if host.seen_at is not None]
    up = (((h.name,), h.seen_at is not None and h.health.state is not State.EJECTED) for h in hosts)
    yield from gauge_lines("corral_host_up", "1 while the host answers and is not ejected.", ("host",), up)
    states = (((h.name, state), h.health.state is state) for h in hosts for state in State)
    yield from gauge_lines("corral_host_state", "1 for the state in force.", ("host", "state"), states)
    limits = (((h.name,), h.host.slots) for h in hosts)
    yield from gauge_lines("corral_host_concurrency_limit", "Slots the gateway allows.", ("host",), limits)
    yield from gauge_lines("corral_host_leases", "Slots held now.", ("host",), (((h.name,), h.leases) for h in hosts))
    vram = (((h.name,), sum(m.vram for m in h.loaded.values())) for h in polled)
    yield from gauge_lines("corral_host_vram_used_bytes", "Sum of size_vram over /api/ps.", ("host",), vram)
    seen = (((h.name,), live.wall - fleet.taken_at + (h.seen_at or 0.0)) for h in polled)
    yield from gauge_lines(
        "corral_host_last_success_timestamp_seconds", "Unix time of the last good poll.", ("host",), seen
    )
    draining = (((h.name,), h.draining) for h in hosts)
    yield from gauge_lines("corral_host_draining", "1 while the host takes no new requests.", ("host",), draining)
    amiss = Counts(finding.kind for finding in findings(fleet, live.placement))
    kinds = (((kind,), amiss[kind]) for kind in FindingKind)
    yield from gauge_lines("corral_fleet_findings", "What is amiss with the fleet as a whole.", ("kind",), kinds)
    info = (((h.name, h.version), 1) for h in polled)
    yield from gauge_lines("corral_host_info", "Constant 1; host facts as labels.", ("host", "ollama_version"), info)


def _model_lines(fleet: FleetSnapshot) -> Iterator[str]:
    rows = [((host.name, model.name), model) for host in fleet.hosts for model in host.loaded.values()]
    told = [(key, model) for key, model in rows if model.row]
    labels = ("host", "model")
    yield from gauge_lines(
        "corral_model_loaded", "1 while the model is in the host's memory.", labels, ((key, 1) for key, _ in rows)
    )
    yield from gauge_lines(
        "corral_model_vram_bytes", "size_vram of a loaded model.", labels, ((key, m.vram) for key, m in told)
    )
    yield from gauge_lines(
        "corral_model_size_bytes", "size of a loaded model.", labels, ((key, m.size) for key, m in told)
    )
    yield from gauge_lines(
        "corral_model_context_length",
        "context_length of a loaded model.",
        labels,
        ((key, m.context) for key, m in told),
    )


def _store_lines(store: Stored | None) -> Iterator[str]:
    if store is None:
        return
    rows: list[tuple[str, str, float | None]] = [
        ("up", "1 while the database takes what is to be kept.", store.up),
        ("queue_depth", "Records waiting to be written.", store.queued),
        ("queue_capacity", "Most records that may wait.", store.queue_limit),
        ("last_flush_timestamp_seconds", "Unix time of the last batch written.", store.written_at),
        ("oldest_timestamp_seconds", "Unix time of the oldest request that is kept.", store.oldest_at),
        ("free_bytes", "Free on the disk of an SQLite file.", store.free_bytes),
    ]
    for name, text, value in rows:
        yield from gauge_lines(f"corral_store_{name}", text, (), [] if value is None else [((), value)])
