"""The catalogue: every family that is fed by events, with its name, meaning, labels and buckets (docs/metrics.md)."""

from gateway.fleet.host import ReloadCause
from gateway.fleet.jobs import KINDS, JobOutcome
from gateway.fleet.keeps import KeepKind
from gateway.fleet.residence import UnloadReason
from gateway.messages import MessageState
from gateway.participants import EndReason, Mode
from gateway.record import AttemptOutcome, CancelSource, Outcome, Phase, RouteReason
from gateway.telemetry.families import Counter, Family, Histogram, counter, histogram

DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
TTFT = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)
TPOT = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
GAP = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
WAIT = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
PROPAGATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
POLL = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LOAD = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
JOB = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200)
LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
FLUSH = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
REJECTED = ("queue_full", "deadline_unmet", "too_large", "bodies_full", "bad_request", "draining")
AT_THE_DOOR = ("not_http", "head_too_large", "too_slow", "too_many_connections")
LIMITS = ("rpm", "tpm", "concurrency", "day", "month")
TOKENS = (16, 64, 256, 1024, 4096, 16384, 65536, 262144)
ERROR = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
OPERATIONS = ("chat", "text_completion", "embeddings")
UNKNOWN_MODEL, OTHER = "_unknown", "_other"
KEPT = ("written", "summed", "dropped_full", "dropped_poison", "dropped_shutdown")


class Catalogue:
    """All families, each an attribute. Series of known labels are there from the start, at 0."""

    def __init__(self) -> None:
        self._declare_requests()
        self._declare_usage()
        self._declare_routing()
        self._declare_hosts()
        self._declare_self()
        self._declare_jobs()
        self._declare_conversations()
        self._declare_store()

    def _declare_requests(self) -> None:
        self.requests = counter(
            "corral_requests", "Requests finished, by how they ended.", "operation", "model", "outcome"
        )
        self.responses = counter("corral_http_responses", "HTTP responses sent, every route.", "route", "code")
        self.at_the_door = counter(
            "corral_http_turned_away",
            "Connections and requests ended before anything served them: not HTTP, too large a head, too slow, too many.",
            "reason",
        )
        self.duration = histogram(
            "corral_request_duration_seconds",
            "From headers received to last byte sent.",
            DURATION,
            "operation",
            "model",
            "outcome",
        )
        self.ttft = histogram(
            "corral_time_to_first_token_seconds",
            "Streaming: headers received to first chunk sent.",
            TTFT,
            "model",
            "host",
        )
        self.tpot = histogram(
            "corral_time_per_output_token_seconds",
            "Per request: (last - first chunk) / (tokens - 1).",
            TPOT,
            "model",
            "host",
        )
        self.gap = histogram(
            "corral_max_chunk_gap_seconds",
            "Per request: the longest silence after the first chunk.",
            GAP,
            "model",
            "host",
        )
        self.overhead = histogram(
            "corral_gateway_overhead_seconds", "Per request: time spent in the gateway itself.", OVERHEAD, "operation"
        )

    def _declare_usage(self) -> None:
        self.tokens = counter(
            "corral_tokens",
            "Tokens, reported by the host or counted by the gateway.",
            "model",
            "host",
            "type",
            "accounting",
        )
        self.request_tokens = histogram(
            "corral_request_tokens", "Tokens of one request, of those that the host reported.", TOKENS, "model", "type"
        )
        self.body_bytes = counter(
            "corral_body_bytes",
            "Bodies of generations: in as the callers sent them, out as the hosts answered and it was passed on.",
            "operation",
            "direction",
        )
        self.eval_seconds = counter(
            "corral_host_eval_seconds", "Time the host says it spent.", "model", "host", "phase"
        )
        self.wasted = counter(
            "corral_wasted_tokens", "Output tokens generated and thrown away.", "model", "host", "reason"
        )
        for operation in OPERATIONS:
            self.expect_requests(operation, UNKNOWN_MODEL)
            for direction in ("in", "out"):
                self.body_bytes.labels(operation, direction)

    def _declare_routing(self) -> None:
        self.queue_wait = histogram("corral_queue_wait_seconds", "Wait for a slot.", WAIT, "model", "outcome")
        self.rejected = counter("corral_requests_rejected", "Refused before routing.", "reason")
        self.limited = counter(
            "corral_requests_limited", "Refused by a limit or a budget of their key, and by which.", "limit"
        )
        self.decisions = counter(
            "corral_routing_decisions",
            "Hosts that generations were sent to, the last one of each, and why it.",
            "host",
            "reason",
        )
        self.no_route = counter("corral_routing_failures", "No host could be chosen.", "reason")
        self.excluded = counter(
            "corral_host_excluded", "Hosts passed over in that decision, and why.", "host", "reason"
        )
        self.prediction_error = histogram(
            "corral_route_error_seconds",
            "Routing's prediction of the first byte against what it took: error=early came sooner, late came later.",
            ERROR,
            "host",
            "error",
        )
        self.attempts = counter("corral_upstream_attempts", "Attempts by how they ended.", "host", "outcome")
        self.attempt_duration = histogram(
            "corral_upstream_attempt_duration_seconds",
            "One attempt, request sent to its end.",
            DURATION,
            "host",
            "outcome",
        )
        self.retries = counter("corral_retries", "Attempts repeated after this host failed.", "host", "reason")
        self.exhausted = counter("corral_retries_exhausted", "Requests that failed on every try.", "model")
        self.cancellations = counter("corral_cancellations", "Cancelled, by whom and where.", "source", "phase")
        self.propagation = histogram(
            "corral_cancel_propagation_seconds", "Cancellation noticed to host connection closed.", PROPAGATION
        )
        for reason in REJECTED:
            self.rejected.labels(reason)
        for code in AT_THE_DOOR:
            self.at_the_door.labels(code)
        for limit in LIMITS:
            self.limited.labels(limit)
        for failure in ("unknown_model", "no_host"):
            self.no_route.labels(failure)
        for source in CancelSource:
            for phase in (Phase.QUEUED, Phase.CONNECTING, Phase.PREFILL, Phase.STREAMING):
                self.cancellations.labels(source, phase)

        self.detached_dropped = counter(
            "corral_detached_chunks_dropped", "Chunks of detached answers that the bounds did not let be kept."
        )
        self.detached_dropped.labels()

    def _declare_hosts(self) -> None:
        self.poll_duration = histogram("corral_host_poll_duration_seconds", "Duration of a poll.", POLL, "host")
        self.poll_errors = counter("corral_host_poll_errors", "Poll failures.", "host", "endpoint", "reason")
        self.loads = counter(
            "corral_model_loads",
            "Models that came into memory: by a request, by a request that only loads, or not through this gateway.",
            "host",
            "model",
            "trigger",
        )
        self.load_duration = histogram(
            "corral_model_load_duration_seconds", "Cold start, as the host tells load_duration.", LOAD, "host"
        )
        self.preloads = counter(
            "corral_preloads",
            "Loads of the gateway's own, for models that are pinned or kept warm: loaded, renewed (told to stay), failed.",
            "host",
            "kind",
            "outcome",
        )
        self.unloads = counter("corral_model_unloads", "Models that left memory, and why.", "host", "reason")
        self.reloads = counter(
            "corral_reloads",
            "Models that were loaded anew, by the runner option that differed: several, elsewhere (not through this gateway), or unknown.",
            "cause",
        )
        for cause in ReloadCause:
            self.reloads.labels(cause)

    def _declare_self(self) -> None:
        self.label_overflow = counter(
            "corral_label_overflow", "Uses of a label's value that is folded into _other: there are too many.", "label"
        )
        self.log_dropped = counter("corral_log_lines_dropped", "Log lines lost because their writer could not keep up.")
        self.spans_dropped = counter("corral_spans_dropped", "Spans that were not sent or did not arrive.", "reason")
        for loss in ("over_limit", "queue_full", "export_failed"):
            self.spans_dropped.labels(loss)
        self.loop_lag = histogram("corral_event_loop_lag_seconds", "How late a timer fires.", LAG)
        self.gc_pause = histogram("corral_gc_pause_seconds", "Pauses of the garbage collector.", LAG, "generation")
        for label in ("model", "host"):
            self.label_overflow.labels(label)

    def _declare_jobs(self) -> None:
        self.jobs = counter("corral_jobs", "Jobs that change models, by how they ended.", "kind", "outcome")
        self.job_duration = histogram("corral_job_duration_seconds", "Duration of a job.", JOB, "kind")
        self.blob_bytes = counter("corral_blob_bytes", "Bytes of uploads handed to a host.", "host")
        for kind in KINDS:
            for outcome in JobOutcome:
                self.jobs.labels(kind, outcome)

    def _declare_conversations(self) -> None:
        self.conversations_started = counter(
            "corral_conversations_started", "Conversations of several models that began.", "mode"
        )
        self.conversations = counter(
            "corral_conversations", "Conversations of several models that ended, by why.", "mode", "outcome"
        )
        self.conversation_turns = counter(
            "corral_conversation_turns",
            "Turns in conversations of several models, by how they ended.",
            "mode",
            "outcome",
        )
        for mode in Mode:
            self.conversations_started.labels(mode)
            for reason in EndReason:
                self.conversations.labels(mode, reason)
            for state in (MessageState.DONE, MessageState.STOPPED, MessageState.ERROR):
                self.conversation_turns.labels(mode, state)

    def _declare_store(self) -> None:
        self.db_records = counter(
            "corral_db_records", "Records of requests by what became of them in the database.", "outcome"
        )
        self.db_flush = histogram("corral_db_flush_duration_seconds", "Writing one batch of records.", FLUSH)
        self.db_deleted = counter(
            "corral_db_deleted_rows",
            "Rows deleted for their age or number, and sessions that nobody restored.",
            "table",
        )
        for result in KEPT:
            self.db_records.labels(result)

    # -- what can be expected, at 0: a rate over a counter that appears with its first event would miss that event -----------------

    def expect_requests(self, operation: str, model: str) -> None:
        """Every outcome of requests of this kind."""
        for outcome in Outcome:
            self.requests.labels(operation, model, outcome)

    def expect_host(self, host: str) -> None:
        """Everything that is counted of a host without its models."""
        for outcome in AttemptOutcome:
            self.attempts.labels(host, outcome)
            if outcome is not AttemptOutcome.OK:
                self.retries.labels(host, outcome)
        for reason in RouteReason:
            self.decisions.labels(host, reason)
        for why in UnloadReason:
            self.unloads.labels(host, why)
        for kind in KeepKind:
            for preload in ("loaded", "renewed", "failed"):
                self.preloads.labels(host, kind, preload)

    def families(self) -> list[Family[Counter] | Family[Histogram]]:
        """Every family that is fed by events."""
        return [family for family in vars(self).values() if isinstance(family, Family)]
