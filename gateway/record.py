"""GenerationRecord: the one wide, frozen event that every generation ends in.

Metrics, the log line, spans and the database row are all derived from it, so they cannot disagree. ``received_at`` is Unix seconds;
everything else is a duration in seconds, or counted from there: monotonic times mean nothing outside the process.

Frozen values are msgspec Structs: a tenth of a frozen dataclass's cost to make, and their JSON is free (docs/decisions/0004).
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from gateway.doc import doc

_SPAN_BITS = 2**64 - 1


class Trace(msgspec.Struct, frozen=True, gc=False):
    """A request's place in its trace, as W3C's Trace Context has it. Attempts have the span ids that follow ``span_id``, so that each is known
    before anything is recorded. ``ours``: spans of this gateway may be in the trace; if not, the caller's ``header`` goes out as it came.
    """

    trace_id: str = ""  # 32 hex digits
    span_id: str = ""  # 16 hex digits
    parent_id: str = ""  # the caller's span, 16 hex digits
    sampled: bool = False  # at the head: hosts and the caller are told so
    state: str = ""  # tracestate
    request_id: str = ""  # the caller's X-Request-Id, or the generation's id
    header: str = ""
    ours: bool = False

    def attempt_id(self, number: int) -> str:
        """The span id of the attempt with this number, from 1."""
        return f"{(int(self.span_id, 16) + number) & _SPAN_BITS:016x}"

    def traceparent(self, span_id: str) -> str:
        """The header for who comes after that span of ours."""
        return f"00-{self.trace_id}-{span_id}-{'01' if self.sampled else '00'}"

    def lines(self, number: int) -> str:
        """The header lines of the attempt with this number."""
        parent = self.traceparent(self.attempt_id(number)) if self.ours else self.header
        if not parent:
            return ""
        state = f"tracestate: {self.state}\r\n" if self.state else ""
        return f"traceparent: {parent}\r\n{state}"

    @property
    def answer(self) -> tuple[tuple[str, str], ...]:
        """The headers of the answer: the request's id, and where its trace is if it will be kept for certain."""
        named = (("X-Request-Id", self.request_id),)
        return (*named, ("traceresponse", self.traceparent(self.span_id))) if self.ours and self.sampled else named


NO_TRACE = Trace()


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """An inference request that ended before it was a generation: its body was not read, or says nothing that could be one. ``code``: of the error
    (docs/errors.md); ``received_at``: Unix seconds.
    """

    id: str  # as in X-Corral-Generation
    trace: Trace
    dialect: str
    endpoint: str
    path: str  # as it was asked for, without its query
    code: str
    status: int  # 499: the client left
    received_at: float
    duration_seconds: float
    client: str


class Outcome(StrEnum):
    """How a generation ended. ``CANCELLED``: also by a deadline of its caller's own; ``GATEWAY_ERROR``: also by a shutdown."""

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
    ORPHAN = "orphan"  # nobody read what a detached one said


class AttemptOutcome(StrEnum):
    """How one try on one host ended."""

    OK = "ok"
    CONNECT_ERROR = "connect_error"
    RESET = "reset"
    HTTP_4XX = "http_4xx"  # what the caller got wrong, but for a model that the host had listed
    HTTP_429 = "http_429"  # the host's own
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
    PINNED = "pinned"  # the caller named it
    COLD_LOAD = "cold_load"
    FALLBACK = "fallback"  # every host was ejected: the best of them is used all the same


class Accounting(StrEnum):
    """Where token counts come from: the host's last chunk, or our own count of an answer that never got one."""

    REPORTED = "reported"
    COUNTED = "counted"


class Costs(msgspec.Struct, frozen=True, gc=False):
    """What one host would cost one request, in seconds. ``affinity`` is zero or negative; ``total`` is the sum, by which hosts compare.

    ``harm``: what others would pay, who find their models or their prompts gone; ``decode``: what a slow answer costs after its first token. Both are
    weighed. ``held``, beside the sum: how long the slot would be taken.
    """

    host: str
    total: float
    queue_wait: float
    load_time: float
    prefill: float
    affinity: float
    penalty: float
    harm: float = 0.0
    decode: float = 0.0
    held: float = 0.0

    @property
    def first_token(self) -> float:
        """Seconds to the first token."""
        return self.queue_wait + self.load_time + self.prefill + self.affinity


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A host that was left out."""

    host: Annotated[str, doc("the host's name")]
    code: Annotated[str, doc("why, for programs: one of a few words")]
    why: Annotated[str, doc("why, for people")]


class Route(msgspec.Struct, frozen=True, gc=False):
    """The decision for one request: the host, why, what every candidate would have cost, and why others were left out."""

    host: str
    reason: RouteReason
    costs: tuple[Costs, ...]  # cheapest first; the second is the runner-up
    rejected: tuple[Rejected, ...]

    @property
    def predicted_seconds(self) -> float:
        """Predicted seconds to the first token on the chosen host."""
        return self.costs[0].first_token

    @property
    def runner_up(self) -> str | None:
        """The second cheapest host."""
        return self.costs[1].host if len(self.costs) > 1 else None


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try on one host. ``at_seconds`` after the generation was received."""

    host: str
    outcome: AttemptOutcome
    at_seconds: float
    seconds: float
    status: int = 0
    why: str = ""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens and the seconds the host says it spent; zero where the host said nothing."""

    input_tokens: int = 0
    output_tokens: int = 0
    accounting: Accounting = Accounting.COUNTED
    load_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    total_seconds: float = 0.0  # that the host had it: these three, and waiting for a slot there


class GenerationRecord(msgspec.Struct, frozen=True, gc=False):
    """Everything known of one finished generation. Its JSON is the log line; docs/operations.md explains each field."""

    received_at: float
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
    host: str | None
    cold: bool
    queue_seconds: float
    ttft_seconds: float | None
    duration_seconds: float
    max_gap_seconds: float
    cancel_seconds: float | None  # from noticing a cancellation to the host's connection closed
    usage: Usage
    chunks: int
    bytes_in: int
    bytes_out: int
    attempts: tuple[Attempt, ...]
    route: Route | None
    detached: bool = False  # it ran on without its caller
    clamped_from: int = 0  # num_ctx that was asked for, where a smaller one was sent
    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    trace_kept: bool = False  # its spans are sent to the collector
    principal: str = ""  # whose key it came with; empty: without one
    priority: str = "normal"  # by which it waited for its turn: interactive, normal or background

    @property
    def overhead_seconds(self) -> float:
        """Time spent in the gateway itself: neither in the queue nor on a host."""
        spent = self.duration_seconds - self.queue_seconds
        for attempt in self.attempts:
            spent -= attempt.seconds
        return max(0.0, spent)

    @property
    def first_token_seconds(self) -> float | None:
        """To the first token; None where there was none: an answer in one piece, an error, what only loads a model. ``ttft_seconds`` is to the
        first byte of any answer that is no error."""
        return self.ttft_seconds if self.stream and self.status < 400 and self.usage.output_tokens else None

    @property
    def prediction_error_seconds(self) -> float | None:
        """How much later than predicted the first byte came, from the attempt that brought it; None where routing predicted nothing like it."""
        route, ttft = self.route, self.ttft_seconds
        if (
            route is None
            or ttft is None
            or not self.stream
            or not self.attempts
            or self.attempts[-1].host != route.host
        ):
            return None
        return ttft - self.attempts[-1].at_seconds - route.costs[0].first_token

    @property
    def seconds_per_output_token(self) -> float | None:
        """Decode pace as the client saw it, over the whole stream; None with fewer than two tokens."""
        if self.ttft_seconds is None or not self.stream or self.usage.output_tokens < 2:
            return None
        return (self.duration_seconds - self.ttft_seconds) / (self.usage.output_tokens - 1)
