"""Metrics are sums over records, live gauges read at the scrape, and labels that are bounded."""

from enum import StrEnum
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from gateway.fleet.health import Health, State
from gateway.fleet.host import Host
from gateway.fleet.keeps import Keep, KeepKind, KeepState
from gateway.fleet.progress import PartState
from gateway.fleet.residence import Load, Trigger, Unload, UnloadReason
from gateway.fleet.snapshot import FleetSnapshot
from gateway.record import (
    Accounting,
    Attempt,
    AttemptOutcome,
    CancelSource,
    GenerationRecord,
    Outcome,
    Phase,
    Rejected,
    RouteReason,
    Usage,
)
from gateway.routing.filters import Rejection
from gateway.store.records import Fate
from gateway.telemetry.catalogue import KEPT, OPERATIONS, REJECTED, UNKNOWN_MODEL
from gateway.telemetry.catalogue import OTHER as OTHER_LABEL
from gateway.telemetry.gauges import LOADED_LIMIT, VERSION_LENGTH, Configured, Shared, Stored, Turned
from gateway.telemetry.metrics import HOST_LABELS_LIMIT, MODEL_LABELS_LIMIT, Metrics
from tests.builders import OTHER, TEXT
from tests.fleet.builders import changed, loaded, snapshot, view
from tests.telemetry.builders import GOOD, RECORD, ROUTE, cancelled, job, live, record, unserved

FAILED = Attempt("gpu2", AttemptOutcome.CONNECT_ERROR, 0.0, 0.25)


class Told:
    """Metrics of some fleet, and what a scrape reads."""

    def __init__(self, fleet: FleetSnapshot | None = None, *, genai_semconv: bool = False, **changes: Any) -> None:
        self.known = {TEXT, OTHER}
        self.live = live(fleet, **changes)
        self.metrics = Metrics(lambda: self.live, lambda model: model in self.known, genai_semconv=genai_semconv)

    def observe(self, *records: GenerationRecord) -> "Told":
        """Count these."""
        for one in records:
            self.metrics.observe(one)
        return self

    @property
    def samples(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Every sample of ours by name and label values."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if sample.name.startswith("corral_") and "le" not in sample.labels:
                    found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
        return found

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of one metric that are not zero."""
        return {labels: value for labels, value in self.samples.get(name, {}).items() if value}


# -- before anything ------------------------------------------------------------------------------------------------------------------


def test_what_may_happen_is_there_at_zero() -> None:
    """A rate over a counter that appears with its first event would miss that event."""
    samples = Told().samples
    assert samples["corral_requests_rejected_total"] == {(reason,): 0.0 for reason in REJECTED}
    assert samples["corral_routing_failures_total"] == {("unknown_model",): 0.0, ("no_host",): 0.0}
    phases = (Phase.QUEUED, Phase.CONNECTING, Phase.PREFILL, Phase.STREAMING)
    assert samples["corral_cancellations_total"] == {
        (source, phase): 0.0 for source in CancelSource for phase in phases
    }
    assert samples["corral_label_overflow_total"] == {("model",): 0.0, ("host",): 0.0}
    for name in ("corral_log_lines_dropped_total", "corral_cancel_propagation_seconds_count"):
        assert samples[name] == {(): 0.0}
    outcomes = {labels[2] for labels in samples["corral_requests_total"]}
    assert outcomes == set(Outcome)
    assert {labels[:2] for labels in samples["corral_requests_total"]} == {(one, UNKNOWN_MODEL) for one in OPERATIONS}


def test_what_may_happen_to_a_host_is_there_at_zero() -> None:
    """As soon as it is in the fleet; and of a model and an operation as soon as one of them was asked for."""
    samples = Told(snapshot(view())).observe(RECORD).samples
    assert {labels[1] for labels in samples["corral_upstream_attempts_total"]} == set(AttemptOutcome)
    assert {labels[1] for labels in samples["corral_routing_decisions_total"]} == set(RouteReason)
    assert {labels[1] for labels in samples["corral_model_unloads_total"]} == set(UnloadReason)
    assert {labels[1] for labels in samples["corral_retries_total"]} == set(AttemptOutcome) - {"ok"}
    requests = {labels for labels in samples["corral_requests_total"] if labels[1] == TEXT}
    assert requests == {("text_completion", TEXT, outcome) for outcome in Outcome}


def test_nothing_is_told_twice() -> None:
    """Every family has its own name, a help and a type; and the process is among them."""
    families = list(text_string_to_metric_families(Told(snapshot(view())).metrics.render().decode()))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert {"process_resident_memory_bytes", "python_info"} <= set(names)


# -- jobs ---------------------------------------------------------------------------------------------------------------------------


def test_jobs() -> None:
    """By kind and how they ended; bytes only of uploads, for each host."""
    told = Told(jobs={"pull": 2, "blob": 0})
    told.metrics.job_ended(job("pull", gpu1=PartState.SUCCEEDED))
    told.metrics.job_ended(job("blob", seconds=60.0, gpu1=PartState.SUCCEEDED, gpu2=PartState.FAILED))
    assert told.counted("corral_jobs_total") == {("pull", "succeeded"): 1.0, ("blob", "partial"): 1.0}
    assert told.counted("corral_job_duration_seconds_sum") == {("pull",): 2.0, ("blob",): 60.0}
    assert told.counted("corral_blob_bytes_total") == {("gpu1",): 10.0, ("gpu2",): 10.0}
    assert told.samples["corral_jobs_in_flight"] == {("pull",): 2.0, ("blob",): 0.0}
    assert told.samples["corral_jobs_total"]["delete", "stopped"] == 0.0


# -- records --------------------------------------------------------------------------------------------------------------------------


def test_an_ordinary_generation() -> None:
    """All that its record holds is counted, once."""
    told = Told().observe(RECORD)
    expected: dict[str, dict[tuple[str, ...], float]] = {
        "corral_requests_total": {("text_completion", TEXT, "ok"): 1},
        "corral_request_duration_seconds_sum": {("text_completion", TEXT, "ok"): 3.75},
        "corral_time_to_first_token_seconds_sum": {(TEXT, "gpu1"): 1.5},
        "corral_time_per_output_token_seconds_sum": {(TEXT, "gpu1"): 2.25 / 24},
        "corral_max_chunk_gap_seconds_sum": {(TEXT, "gpu1"): 0.125},
        "corral_gateway_overhead_seconds_sum": {("text_completion",): 0.5},
        "corral_tokens_total": {(TEXT, "gpu1", "input", "reported"): 14, (TEXT, "gpu1", "output", "reported"): 25},
        "corral_host_eval_seconds_total": {(TEXT, "gpu1", "prompt_eval"): 0.5, (TEXT, "gpu1", "eval"): 2.5},
        "corral_queue_wait_seconds_sum": {(TEXT, "admitted"): 0.25},
        "corral_request_tokens_sum": {(TEXT, "input"): 14, (TEXT, "output"): 25},
        "corral_request_tokens_count": {(TEXT, "input"): 1, (TEXT, "output"): 1},
        "corral_body_bytes_total": {("text_completion", "in"): 100, ("text_completion", "out"): 2600},
        "corral_route_error_seconds_sum": {("gpu1", "late"): 0.5},
        "corral_routing_decisions_total": {("gpu1", "loaded"): 1},
        "corral_host_excluded_total": {("gpu3", "circuit_open"): 1},
        "corral_upstream_attempts_total": {("gpu1", "ok"): 1},
        "corral_upstream_attempt_duration_seconds_sum": {("gpu1", "ok"): 3.0},
        "corral_retries_total": {},
        "corral_retries_exhausted_total": {},
        "corral_cancellations_total": {},
        "corral_wasted_tokens_total": {},
        "corral_routing_failures_total": {},
    }
    assert {name: told.counted(name) for name in expected} == expected
    told.observe(RECORD)
    assert told.counted("corral_requests_total") == {("text_completion", TEXT, "ok"): 2}


CASES: dict[str, tuple[GenerationRecord, str, dict[tuple[str, ...], float]]] = {
    "an answer that does not stream has no first token": (
        record(stream=False),
        "corral_time_to_first_token_seconds_count",
        {},
    ),
    "a request that only loads has no first token": (
        record(usage=Usage(0, 0, Accounting.REPORTED, 4.0)),
        "corral_time_to_first_token_seconds_count",
        {},
    ),
    "an error has no first token": (
        record(outcome=Outcome.CLIENT_ERROR, status=400),
        "corral_time_to_first_token_seconds_count",
        {},
    ),
    "tokens that we counted ourselves": (
        record(usage=Usage(0, 7)),
        "corral_tokens_total",
        {(TEXT, "gpu1", "output", "counted"): 7},
    ),
    "tokens of an answer that was cut short are not those of a request": (
        record(usage=Usage(0, 7)),
        "corral_request_tokens_count",
        {},
    ),
    "a first byte before its time": (
        record(ttft_seconds=0.75),
        "corral_route_error_seconds_sum",
        {("gpu1", "early"): 0.25},
    ),
    "a first byte from another host than was predicted": (
        record(attempts=(GOOD, FAILED)),
        "corral_route_error_seconds_count",
        {},
    ),
    "a second host": (
        record(attempts=(FAILED, GOOD)),
        "corral_upstream_attempts_total",
        {("gpu2", "connect_error"): 1, ("gpu1", "ok"): 1},
    ),
    "a host that was left": (record(attempts=(FAILED, GOOD)), "corral_retries_total", {("gpu2", "connect_error"): 1}),
    "the same host again": (
        record(attempts=(Attempt("gpu1", AttemptOutcome.RESET, 0.0, 0.1), GOOD)),
        "corral_upstream_attempts_total",
        {("gpu1", "reset"): 1, ("gpu1", "ok"): 1},
    ),
    "every host failed": (
        record(outcome=Outcome.UPSTREAM_ERROR, status=502, attempts=(FAILED, FAILED), ttft_seconds=None, usage=Usage()),
        "corral_retries_exhausted_total",
        {(TEXT,): 1},
    ),
    "a host failed in the middle": (
        record(
            outcome=Outcome.UPSTREAM_ERROR,
            attempts=(Attempt("gpu1", AttemptOutcome.MIDSTREAM_ERROR, 0.0, 1.0),),
        ),
        "corral_retries_exhausted_total",
        {},
    ),
    "a host that sends nonsense in the middle": (
        record(
            outcome=Outcome.UPSTREAM_ERROR,
            attempts=(Attempt("gpu1", AttemptOutcome.PROTOCOL_ERROR, 0.0, 1.0),),
        ),
        "corral_retries_exhausted_total",
        {},
    ),
    "nobody has the model": (
        unserved(Outcome.CLIENT_ERROR, 404),
        "corral_routing_failures_total",
        {("unknown_model",): 1},
    ),
    "nobody can take it": (unserved(Outcome.NO_HOST, 503), "corral_routing_failures_total", {("no_host",): 1}),
    "a bad request": (unserved(Outcome.CLIENT_ERROR, 400), "corral_routing_failures_total", {}),
    "a host's own 404": (
        record(
            outcome=Outcome.CLIENT_ERROR,
            status=404,
            attempts=(Attempt("gpu1", AttemptOutcome.HTTP_4XX, 0.0, 0.1, 404),),
        ),
        "corral_routing_failures_total",
        {},
    ),
    "who waited in vain": (
        unserved(Outcome.REJECTED, 503),
        "corral_queue_wait_seconds_count",
        {(TEXT, "refused"): 1},
    ),
    "who left the queue": (
        unserved(Outcome.CANCELLED, 0, cancelled_by=CancelSource.CLIENT),
        "corral_queue_wait_seconds_count",
        {(TEXT, "cancelled"): 1},
    ),
    "whose time ran out in the queue": (
        unserved(Outcome.TIMEOUT, 504, cancelled_by=CancelSource.DEADLINE),
        "corral_queue_wait_seconds_count",
        {(TEXT, "timeout"): 1},
    ),
    "a cancellation": (cancelled(), "corral_cancellations_total", {("client_disconnect", "streaming"): 1}),
    "what a cancellation wasted": (cancelled(), "corral_wasted_tokens_total", {(TEXT, "gpu1", "cancelled"): 7}),
    "a cancellation that wasted nothing": (cancelled(usage=Usage()), "corral_wasted_tokens_total", {}),
    "how long a cancellation took": (cancelled(), "corral_cancel_propagation_seconds_sum", {(): 0.002}),
    "the seconds of a cold start": (
        record(cold=True, usage=Usage(1, 2, Accounting.REPORTED, 4.0)),
        "corral_model_load_duration_seconds_sum",
        {("gpu1",): 4.0},
    ),
}


@pytest.mark.parametrize(("made", "name", "expected"), CASES.values(), ids=CASES)
def test_records(made: GenerationRecord, name: str, expected: dict[tuple[str, ...], float]) -> None:
    """What one metric counts of one record."""
    assert Told().observe(made).counted(name) == expected


ENUMS: dict[str, dict[str, type[StrEnum] | tuple[str, ...]]] = {
    "corral_requests_total": {"outcome": Outcome},
    "corral_request_duration_seconds": {"outcome": Outcome},
    "corral_tokens_total": {"type": ("input", "output"), "accounting": Accounting},
    "corral_host_eval_seconds_total": {"phase": ("load", "prompt_eval", "eval")},
    "corral_wasted_tokens_total": {"reason": ("cancelled", "failed")},
    "corral_queue_wait_seconds": {"outcome": ("admitted", "cancelled", "timeout", "refused")},
    "corral_requests_rejected_total": {"reason": REJECTED},
    "corral_routing_decisions_total": {"reason": RouteReason},
    "corral_routing_failures_total": {"reason": ("unknown_model", "no_host")},
    "corral_host_excluded_total": {"reason": Rejection},
    "corral_upstream_attempts_total": {"outcome": AttemptOutcome},
    "corral_upstream_attempt_duration_seconds": {"outcome": AttemptOutcome},
    "corral_retries_total": {"reason": AttemptOutcome},
    "corral_cancellations_total": {"source": CancelSource, "phase": Phase},
    "corral_host_state": {"state": State},
    "corral_model_unloads_total": {"reason": UnloadReason},
    "corral_route_error_seconds": {"error": ("early", "late")},
    "corral_request_tokens": {"type": ("input", "output")},
    "corral_body_bytes_total": {"operation": OPERATIONS, "direction": ("in", "out")},
}
"""Labels whose values are of a fixed set."""


def everything() -> list[GenerationRecord]:
    """Records of every outcome, attempt, cancellation, route and rejection that there is."""
    rejected = tuple(Rejected("gpu2", code, "why") for code in Rejection)
    routes = [msgspec.structs.replace(ROUTE, reason=reason, rejected=rejected) for reason in RouteReason]
    return [
        *[record(outcome=outcome, status=404) for outcome in Outcome],
        *[unserved(outcome, status) for outcome in Outcome for status in (404, 503)],
        *[record(attempts=(Attempt("gpu1", outcome, 0.0, 1.0), GOOD)) for outcome in AttemptOutcome if outcome != "ok"],
        *[record(attempts=(Attempt("gpu1", outcome, 0.0, 1.0),)) for outcome in AttemptOutcome],
        *[cancelled(source, phase) for source in CancelSource for phase in Phase if phase is not Phase.DONE],
        *[record(route=route) for route in routes],
    ]


def test_labels_of_fixed_sets() -> None:
    """Whatever happens, such a label has a value of its set; and each value is met."""
    told = Told(snapshot(view(), view("gpu2"))).observe(*everything())
    for family in text_string_to_metric_families(told.metrics.render().decode()):
        for sample in family.samples:
            name = next((name for name in (sample.name, family.name) if name in ENUMS), None)
            for label, values in ENUMS.get(name or "", {}).items():
                assert sample.labels[label] in set(values)
    seen = {(labels, name) for name in ENUMS for labels in told.samples.get(name, {})}
    assert {labels[2] for labels, name in seen if name == "corral_requests_total"} == set(Outcome)
    assert {labels[1] for labels, name in seen if name == "corral_upstream_attempts_total"} == set(AttemptOutcome)
    assert {labels[1] for labels, name in seen if name == "corral_host_excluded_total"} == set(Rejection)


def test_sums_agree() -> None:
    """Requests are attempts and refusals; nothing is counted by one metric and forgotten by another."""
    records = everything()
    told = Told().observe(*records)
    assert sum(told.counted("corral_requests_total").values()) == len(records)
    assert sum(told.counted("corral_request_duration_seconds_count").values()) == len(records)
    assert sum(told.counted("corral_upstream_attempts_total").values()) == sum(len(one.attempts) for one in records)
    assert sum(told.counted("corral_cancellations_total").values()) == sum(
        one.cancelled_by is not None for one in records
    )
    assert sum(told.counted("corral_routing_decisions_total").values()) == sum(one.route is not None for one in records)


# -- bounded labels -------------------------------------------------------------------------------------------------------------------


def test_a_model_that_no_host_has() -> None:
    """Is not named: anybody could invent labels without end."""
    told = Told().observe(unserved(Outcome.CLIENT_ERROR, 404, model="nope:latest"))
    assert told.counted("corral_requests_total") == {("text_completion", UNKNOWN_MODEL, "client_error"): 1}


def test_a_model_that_was_deleted_meanwhile() -> None:
    """A host has answered with it a moment ago, whether or not any lists it now."""
    told = Told()
    told.known = set()
    told.observe(record(model="gone:latest"))
    assert told.counted("corral_requests_total") == {("text_completion", "gone:latest", "ok"): 1}


def test_too_many_models() -> None:
    """The first ones are named, the others are one, and that is counted."""
    told = Told()
    told.known = {f"m{number}:latest" for number in range(MODEL_LABELS_LIMIT + 3)}
    told.observe(*[record(model=f"m{number}:latest") for number in range(MODEL_LABELS_LIMIT + 3)])
    told.observe(record(model="m0:latest"))
    counted = told.counted("corral_requests_total")
    assert len(counted) == MODEL_LABELS_LIMIT + 1
    assert counted["text_completion", OTHER_LABEL, "ok"] == 3
    assert counted["text_completion", "m0:latest", "ok"] == 2
    assert told.counted("corral_label_overflow_total") == {("model",): 3}


def test_too_many_hosts() -> None:
    """Come and go over the years: the first ones are named."""
    told = Told()
    names = [f"gpu{number}" for number in range(HOST_LABELS_LIMIT + 2)]
    for name in names:
        told.metrics.polled(name, 0.25)
    assert told.counted("corral_host_poll_duration_seconds_count") == {
        **{(name,): 1 for name in names[:HOST_LABELS_LIMIT]},
        (OTHER_LABEL,): 2,
    }
    assert told.counted("corral_label_overflow_total") == {("host",): 2}


# -- exemplars ------------------------------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def exemplars(told: Told) -> set[tuple[str, str, float]]:
    """Family, bound and value of each."""
    families = openmetrics_families(told.metrics.render(openmetrics=True).decode())
    samples = [(family.name, sample) for family in families for sample in family.samples if sample.exemplar]
    assert {sample.exemplar.labels["trace_id"] for _, sample in samples} <= {TRACE}
    return {(name, sample.labels["le"], sample.exemplar.value) for name, sample in samples}


def test_exemplars_are_of_traces_that_are_kept() -> None:
    """Where somebody will look for what took long; of a trace that is not kept there is none."""
    told = Told().observe(RECORD)
    assert exemplars(told) == set()
    told.observe(record(trace_id=TRACE))
    assert exemplars(told) == set()
    told.observe(record(cold=True, usage=Usage(1, 2, Accounting.REPORTED, 4.0), trace_id=TRACE, trace_kept=True))
    assert exemplars(told) == {
        ("corral_request_duration_seconds", "5.0", 3.75),
        ("corral_time_to_first_token_seconds", "1.5", 1.5),
        ("corral_upstream_attempt_duration_seconds", "5.0", 3.0),
        ("corral_model_load_duration_seconds", "5.0", 4.0),
    }
    told = Told()
    told.observe(msgspec.structs.replace(unserved(Outcome.NO_HOST, 503), trace_id=TRACE, trace_kept=True))
    assert exemplars(told) == {("corral_request_duration_seconds", "5.0", 3.75)}


def test_both_formats_tell_the_same() -> None:
    """Sample for sample, everything there is."""
    told = Told(snapshot(view(holds=[TEXT]), view("gpu2")), genai_semconv=True).observe(*everything())
    text, strict = (
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith(("corral_", "gen_ai_"))
        }
        for families in (
            text_string_to_metric_families(told.metrics.render().decode()),
            openmetrics_families(told.metrics.render(openmetrics=True).decode()),
        )
    )
    assert text == strict
    assert len(text) > 900


def test_a_scrape_in_pieces() -> None:
    """Is the scrape; each piece is of whole lines, and none is so large that a stream would notice."""
    told = Told(snapshot(view(holds=[TEXT]), view("gpu2"))).observe(*everything())
    pieces = list(told.metrics.pieces())
    assert len(pieces) > 5
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert max(map(len, pieces)) < sum(map(len, pieces)) / 2
    ours = [piece.partition(b"# HELP process_")[0] for piece in pieces]
    assert b"".join(ours) == told.metrics.render().partition(b"# HELP process_")[0]


# -- other events ---------------------------------------------------------------------------------------------------------------------


def test_responses() -> None:
    """Each by route and status."""
    told = Told()
    for route, status in (("/api/chat", 200), ("/api/chat", 200), ("/api/chat", 503), ("_unmatched", 404)):
        told.metrics.responded(route, status)
    assert told.counted("corral_http_responses_total") == {
        ("/api/chat", "200"): 2,
        ("/api/chat", "503"): 1,
        ("_unmatched", "404"): 1,
    }


def test_polls() -> None:
    """Good ones by how long they took, failures by what was asked and why."""
    told = Told()
    told.metrics.polled("gpu1", 0.25)
    told.metrics.poll_failed("gpu1", "ps", "timeout")
    assert told.counted("corral_host_poll_duration_seconds_sum") == {("gpu1",): 0.25}
    assert told.counted("corral_host_poll_errors_total") == {("gpu1", "ps", "timeout"): 1}


def test_models_that_come_and_go() -> None:
    """By host: what for, and why."""
    told = Told()
    told.metrics.moved(Load("gpu1", TEXT, Trigger.REQUEST))
    told.metrics.moved(Load("gpu1", "nope:latest", Trigger.ELSEWHERE))
    told.metrics.moved(Unload("gpu1", TEXT, UnloadReason.EVICTED))
    assert told.counted("corral_model_loads_total") == {
        ("gpu1", TEXT, "request"): 1,
        ("gpu1", UNKNOWN_MODEL, "elsewhere"): 1,
    }
    assert told.counted("corral_model_unloads_total") == {("gpu1", "evicted"): 1}


# -- gauges ---------------------------------------------------------------------------------------------------------------------------


def test_gauges_of_the_gateway() -> None:
    """What runs, what waits, and what this is."""
    told = Told(queued={TEXT: 3}, oldest_seconds=1.5, in_flight={("gpu1", TEXT): 2})
    assert told.samples["corral_requests_in_flight"] == {("gpu1", TEXT): 2}
    assert told.samples["corral_queue_depth"] == {(TEXT,): 3}
    assert told.samples["corral_queue_limit"] == {(): 512}
    assert told.samples["corral_queue_oldest_seconds"] == {(): 1.5}
    assert told.samples["corral_build_info"] == {("0.1.0", "python", "3.11.7"): 1}


def test_gauges_of_what_goes_on_besides() -> None:
    """Turns, tasks, the configuration; other gateways where there can be any."""
    told = Told(
        turns=Turned(2, {"done": 5}),
        task_failures=3,
        configured=Configured(False, 17.0, 4, 1),
        shared=Shared(3, True, 2),
    )
    samples = told.samples
    expected = {
        "corral_turns_in_flight": {(): 2},
        "corral_turns_total": {("done",): 5},
        "corral_task_failures_total": {(): 3},
        "corral_config_last_reload_successful": {(): 0},
        "corral_config_last_reload_success_timestamp_seconds": {(): 17},
        "corral_config_reloads_total": {("ok",): 4, ("failed",): 1},
        "corral_replicas": {(): 3},
        "corral_replica_bus_up": {(): 1},
        "corral_replica_bus_connections_total": {(): 2},
    }
    assert {name: samples[name] for name in expected} == expected
    assert not [name for name in Told().samples if name.startswith("corral_replica")]


def test_gauges_of_the_store() -> None:
    """Whether it is there, what waits for it; nothing where nothing is kept."""
    assert not [name for name in Told().samples if name.startswith("corral_db_queue")]
    samples = Told(
        store=Stored(up=False, queued=3, queue_limit=50_000, written_at=None, oldest_at=None, free_bytes=7)
    ).samples
    assert samples["corral_db_up"] == {(): 0}
    assert samples["corral_db_queue_depth"] == {(): 3}
    assert samples["corral_db_queue_limit"] == {(): 50_000}
    assert samples["corral_db_free_bytes"] == {(): 7}
    assert "corral_db_last_flush_timestamp_seconds" not in samples


def test_every_fate_is_told_from_the_start() -> None:
    """Under the store's own words."""
    told = {labels[0] for labels in Told().metrics.db_records.children()}
    assert told == set(KEPT) == set(Fate)


def test_gauges_of_hosts() -> None:
    """Each host's state, slots and age; of what no poll has told there is nothing."""
    fleet = snapshot(
        view("gpu1", slots=4, leases=2, holds=[TEXT], seen_at=8.0),
        view("gpu2", health=Health(State.EJECTED, "gone"), seen_at=2.0),
        view("gpu3", has=None, health=Health(), seen_at=None),
        at=10.0,
    )
    samples = Told(fleet).samples
    assert samples["corral_host_up"] == {("gpu1",): 1, ("gpu2",): 0, ("gpu3",): 0}
    states = samples["corral_host_state"]
    assert {labels for labels, value in states.items() if value} == {
        ("gpu1", "healthy"),
        ("gpu2", "ejected"),
        ("gpu3", "suspect"),
    }
    assert len(states) == 3 * len(State)
    assert samples["corral_host_concurrency_limit"] == {("gpu1",): 4, ("gpu2",): 1, ("gpu3",): 1}
    assert samples["corral_host_leases"] == {("gpu1",): 2, ("gpu2",): 0, ("gpu3",): 0}
    seen = samples["corral_host_last_success_timestamp_seconds"]
    assert seen == {("gpu1",): 1_795_354_515.0, ("gpu2",): 1_795_354_509.0}
    assert samples["corral_host_info"] == {("gpu1", "0.33.0"): 1, ("gpu2", "0.33.0"): 1}


def test_models_that_are_to_stay() -> None:
    """Whether they are there; one that two rules name is one."""
    states = zip((TEXT, TEXT, OTHER, OTHER), KeepState, strict=False)
    keeps = [Keep(model, KeepKind.WARM, state) for model, state in states]
    told = Told(keeps={"gpu1": [*keeps, Keep(TEXT, KeepKind.PIN, KeepState.LOADED)], "gpu2": []}).samples
    assert told["corral_model_kept"] == {
        ("gpu1", TEXT, "warm"): 1,
        ("gpu1", OTHER, "warm"): 0,
        ("gpu1", TEXT, "pin"): 1,
    }


def test_gauges_of_models() -> None:
    """Which are loaded where; sizes only where a poll told them."""
    proof = loaded(OTHER, context=0)
    fleet = snapshot(view(holds=[TEXT, type(proof)(OTHER, proof.digest, 0, 0, 0, "", {})]))
    samples = Told(fleet).samples
    assert samples["corral_model_loaded"] == {("gpu1", TEXT): 1, ("gpu1", OTHER): 1}
    for name in ("corral_model_vram_bytes", "corral_model_size_bytes"):
        assert samples[name] == {("gpu1", TEXT): 1e9}
    assert samples["corral_model_context_length"] == {("gpu1", TEXT): 4096}
    assert "corral_model_expires_timestamp_seconds" not in samples
    until = loaded(TEXT, expires_at="2026-11-22T13:40:16.579925016Z")
    expires = Told(snapshot(view(holds=[until]))).samples["corral_model_expires_timestamp_seconds"]
    assert expires == {("gpu1", TEXT): 1_795_354_816.579925}


def test_memory_of_hosts() -> None:
    """What a host has is known only where the configuration says it; what other gateways hold there only as they tell."""
    one = changed(view(), host=Host("gpu1", "http://gpu1", vram_bytes=24 * 10**9), elsewhere=2)
    samples = Told(snapshot(one, view("gpu2"))).samples
    assert samples["corral_host_vram_total_bytes"] == {("gpu1",): 24e9}
    assert samples["corral_host_leases_elsewhere"] == {("gpu1",): 2, ("gpu2",): 0}


def test_a_host_that_says_too_much() -> None:
    """Of its version and its models no more is told than any real one has."""
    models = [loaded(f"m{number}") for number in range(LOADED_LIMIT + 10)]
    odd = changed(view(holds=[*models, loaded("x" * 9999)]), version="9" * 9999)
    samples = Told(snapshot(odd)).samples
    assert len(samples["corral_model_loaded"]) == LOADED_LIMIT
    assert [len(labels[1]) for labels in samples["corral_host_info"]] == [VERSION_LENGTH]


def test_odd_names_are_escaped() -> None:
    """A host's list may hold any text."""
    odd = 'a"b\\c\nd:1'
    assert Told(snapshot(view(holds=[odd]))).samples["corral_model_loaded"] == {("gpu1", odd): 1}
