"""GenerationRecord: the one wide, frozen event that every generation ends in.

Metrics, the log line, spans and the database row are all derived from it, so they cannot disagree. Times are monotonic seconds
of the process, but for ``received_at`` (Unix seconds); durations are properties and are never stored twice.
"""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a generation ended."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"
    NO_HOST = "no_host"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    GATEWAY_ERROR = "gateway_error"


class Phase(StrEnum):
    """Where a generation is, or was when it ended."""

    QUEUED = "queued"
    CONNECTING = "connecting"
    PREFILL = "prefill"  # the host has the request and has sent nothing: it queues, loads or reads the prompt
    STREAMING = "streaming"
    DONE = "done"


class CancelSource(StrEnum):
    """Who stopped a generation."""

    CLIENT = "client_disconnect"
    OPERATOR = "api"
    DEADLINE = "timeout"
    SHUTDOWN = "shutdown"


class AttemptOutcome(StrEnum):
    """How one try on one host ended."""

    OK = "ok"
    CONNECT_ERROR = "connect_error"
    RESET = "reset"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    PROTOCOL_ERROR = "protocol_error"
    MIDSTREAM_ERROR = "midstream_error"
    CANCELLED = "cancelled"


class RouteReason(StrEnum):
    """Why the chosen host was the cheapest."""

    ONLY_CANDIDATE = "only_candidate"
    AFFINITY = "affinity"
    LOADED = "loaded"
    LEAST_BUSY = "least_busy"
    COLD_LOAD = "cold_load"
    FALLBACK = "fallback"  # every host was ejected: the best of them is used all the same


class Accounting(StrEnum):
    """Where token counts come from: the host's last chunk, or our own count of an answer that never got one."""

    REPORTED = "reported"
    COUNTED = "counted"


@dataclass(frozen=True, slots=True)
class Costs:
    """What one host would cost one request, in seconds. ``affinity`` is zero or negative."""

    queue_wait: float
    load_time: float
    prefill: float
    affinity: float
    penalty: float

    @property
    def total(self) -> float:
        """Predicted seconds to the first token."""
        return self.queue_wait + self.load_time + self.prefill + self.affinity + self.penalty

    def as_dict(self) -> dict[str, float]:
        """The breakdown as the explain endpoint, the log line and the span show it."""
        return {
            "queue_wait": round(self.queue_wait, 4),
            "load_time": round(self.load_time, 4),
            "prefill": round(self.prefill, 4),
            "affinity": round(self.affinity, 4),
            "penalty": round(self.penalty, 4),
            "total": round(self.total, 4),
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """A host that was left out: ``code`` is bounded (a metric label), ``why`` is for people."""

    host: str
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Route:
    """The decision for one request: the host, why, what every candidate would have cost, and why others were left out."""

    host: str
    reason: RouteReason
    costs: tuple[tuple[str, Costs], ...]  # cheapest first; the second is the runner-up
    rejected: tuple["Rejected", ...]

    @property
    def predicted_seconds(self) -> float:
        """Predicted seconds to the first token on the chosen host."""
        return self.costs[0][1].total

    @property
    def runner_up(self) -> str | None:
        """The second cheapest host."""
        return self.costs[1][0] if len(self.costs) > 1 else None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try on one host. Times are monotonic seconds."""

    host: str
    outcome: AttemptOutcome
    started: float
    ended: float
    status: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and the seconds the host says it spent; zero where the host said nothing."""

    input_tokens: int = 0
    output_tokens: int = 0
    accounting: Accounting = Accounting.COUNTED
    load_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """Everything known of one finished generation."""

    id: str
    dialect: str
    endpoint: str
    operation: str
    requested_model: str
    model: str
    stream: bool
    session: str | None
    client: str
    outcome: Outcome
    reason: str
    phase: Phase
    cancelled_by: CancelSource | None
    status: int
    route: Route | None
    attempts: tuple[Attempt, ...]
    cold: bool
    usage: Usage
    chunks: int
    bytes_in: int
    bytes_out: int
    max_gap_seconds: float
    received_at: float
    received: float
    queued_seconds: float
    leased: float | None
    first_byte: float | None
    last_byte: float | None
    cancel_noticed: float | None
    ended: float

    @property
    def host(self) -> str | None:
        """The host that answered, or was tried last."""
        return self.attempts[-1].host if self.attempts else None

    @property
    def duration_seconds(self) -> float:
        """From the request's head to the last byte sent or the end noticed."""
        return self.ended - self.received

    @property
    def ttft_seconds(self) -> float | None:
        """From the request's head to the first byte of the answer: queue, load and prefill are inside."""
        return None if self.first_byte is None else self.first_byte - self.received

    @property
    def seconds_per_output_token(self) -> float | None:
        """Decode pace as the client saw it; None with fewer than two tokens."""
        if self.first_byte is None or self.last_byte is None or self.usage.output_tokens < 2 or not self.stream:
            return None
        return (self.last_byte - self.first_byte) / (self.usage.output_tokens - 1)

    @property
    def overhead_seconds(self) -> float:
        """Time spent in the gateway itself: neither in the queue nor on a host."""
        return max(0.0, self.duration_seconds - self.queued_seconds - sum(a.ended - a.started for a in self.attempts))
