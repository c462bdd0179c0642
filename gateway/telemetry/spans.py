"""What a finished generation's spans say: one for the request, and below it one for each attempt on a host.

Pure, and run by the thread that sends them. Names of attributes are those of OpenTelemetry's semantic conventions for generative AI, 1.42, and for HTTP,
written out here: a library's constants may be renamed. What is Corral's own is ``corral.*``, what only Ollama tells ``ollama.*``.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from gateway.dialects.read import fields_of
from gateway.dialects.request import InferenceRequest
from gateway.errors import BadRequest
from gateway.record import Attempt, AttemptOutcome, GenerationRecord
from gateway.telemetry.content import Content
from gateway.telemetry.sampling import ERRORS

SCHEMA = "https://opentelemetry.io/schemas/gen-ai/1.42.0"
Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]
COST_NAMES = ("total", "queue_wait", "load_time", "prefill", "affinity", "penalty", "harm", "decode")
_NO_ERROR = (AttemptOutcome.OK, AttemptOutcome.CANCELLED)
_REASON = re.compile(rb'"(?:done_reason|finish_reason|stop_reason)"\s*:\s*"([a-z_]{1,32})"')
_PARAMETERS: tuple[tuple[str, type, tuple[str, ...]], ...] = (
    ("gen_ai.request.temperature", float, ("temperature",)),
    ("gen_ai.request.top_p", float, ("top_p",)),
    ("gen_ai.request.top_k", float, ("top_k",)),
    ("gen_ai.request.seed", int, ("seed",)),
    ("gen_ai.request.frequency_penalty", float, ("frequency_penalty",)),
    ("gen_ai.request.presence_penalty", float, ("presence_penalty",)),
    ("gen_ai.request.max_tokens", int, ("num_predict", "max_tokens", "max_completion_tokens", "max_output_tokens")),
)


class Finished(NamedTuple):
    """What spans are made of. ``why``: as ``Sampling.why`` has it; ``hosts``: the URLs of those that were tried; ``tail``: the answer's end,
    ``said`` its beginning, if that is wanted."""

    record: GenerationRecord
    request: InferenceRequest
    why: str
    hosts: Mapping[str, str]
    tail: bytes
    said: bytes


class Happening(NamedTuple):
    """An event of a span, at Unix seconds."""

    name: str
    at: float
    attributes: Attributes


class Span(NamedTuple):
    """One span, ids in hex and times in Unix seconds. ``error``: why its status is one; None: it is not."""

    name: str
    server: bool  # else a client's
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start: float
    end: float
    attributes: Attributes
    events: tuple[Happening, ...]
    error: str | None


def spans_of(finished: Finished, content: Content | None) -> list[Span]:
    """The request's span, then one for each attempt, in their order. ``content``: takes prompts and answers along."""
    record, trace = finished.record, finished.request.trace
    end = record.received_at + record.duration_seconds
    failed = record.outcome in ERRORS
    spans = [
        Span(
            f"POST {record.endpoint}",
            True,
            trace.trace_id,
            trace.span_id,
            trace.parent_id,
            trace.state,
            record.received_at,
            end,
            _of_request(finished, failed=failed),
            _events(record),
            record.reason or record.outcome.value if failed else None,
        )
    ]
    asked = _asked(finished, content)
    for number, attempt in enumerate(record.attempts, start=1):
        last = number == len(record.attempts)
        attributes = (
            _of_attempt(finished, attempt, number) | asked | (_of_answer(finished, attempt, content) if last else {})
        )
        error = None if attempt.outcome in _NO_ERROR else attempt.outcome.value
        if error:
            attributes["error.type"] = error
        start = record.received_at + attempt.at_seconds
        spans.append(
            Span(
                f"{record.operation} {record.model}",
                False,
                trace.trace_id,
                trace.attempt_id(number),
                trace.span_id,
                trace.state,
                start,
                start + attempt.seconds,
                attributes,
                _of_stream(record, attempt, start) if last else (),
                (attempt.why or error) if error else None,
            )
        )
    return spans


def _of_request(finished: Finished, *, failed: bool) -> Attributes:
    record = finished.record
    attributes: Attributes = {
        "http.request.method": "POST",
        "http.route": record.endpoint,
        "url.path": record.endpoint,
        "corral.request.id": record.request_id,
        "corral.generation.id": record.id,
        "corral.api": record.dialect,
        "corral.outcome": record.outcome.value,
        "corral.phase": record.phase.value,
        "corral.priority": record.priority,
        "corral.queue.wait": record.queue_seconds,
        "corral.overhead": record.overhead_seconds,
        "corral.attempts": len(record.attempts),
        "corral.kept": finished.why,
    }
    if record.status:
        attributes["http.response.status_code"] = record.status
    if record.client:
        attributes["client.address"] = record.client
    if record.session:
        attributes["gen_ai.conversation.id"] = record.session
    if record.host:
        attributes["corral.host"] = record.host
    if record.cancelled_by is not None:
        attributes["corral.cancelled_by"] = record.cancelled_by.value
    if record.reason:
        attributes["corral.reason"] = record.reason
    if record.ttft_seconds is not None:
        attributes["corral.time_to_first_byte"] = record.ttft_seconds
    if failed:
        attributes["error.type"] = record.outcome.value
    return attributes


def _events(record: GenerationRecord) -> tuple[Happening, ...]:
    """Waiting, if there was any, and the last decision."""
    events = []
    begun = record.attempts[-1].at_seconds if record.attempts else record.duration_seconds
    if record.queue_seconds > 0:
        waited: Attributes = {"corral.queue.wait": record.queue_seconds}
        events.append(Happening("corral.queued", record.received_at + max(0.0, begun - record.queue_seconds), {}))
        if record.route is not None:
            events.append(Happening("corral.admitted", record.received_at + begun, waited))
    if (route := record.route) is not None:
        attributes: Attributes = {
            "corral.host": route.host,
            "corral.route.reason": route.reason.value,
            "corral.route.candidates": len(route.costs),
            "corral.route.predicted": route.predicted_seconds,
            "corral.route.excluded": [f"{one.host}:{one.code}" for one in route.rejected],
            "corral.model_loaded": not record.cold,
        }
        if route.runner_up is not None:
            attributes["corral.route.runner_up"] = route.runner_up
            attributes["corral.route.runner_up_total"] = route.costs[1].total
        attributes |= {f"corral.route.{name}": getattr(route.costs[0], name) for name in COST_NAMES}
        events.append(Happening("corral.route", record.received_at + begun, attributes))
    return tuple(events)


def _of_attempt(finished: Finished, attempt: Attempt, number: int) -> Attributes:
    record = finished.record
    attributes: Attributes = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": record.requested_model,
        "gen_ai.request.stream": record.stream,
        "corral.host": attempt.host,
        "corral.attempt.outcome": attempt.outcome.value,
    }
    if attempt.status:
        attributes["http.response.status_code"] = attempt.status
    if number > 1:
        attributes["http.request.resend_count"] = number - 1
    parts = urlsplit(finished.hosts.get(attempt.host, ""))
    if parts.hostname:
        attributes["server.address"] = parts.hostname
        attributes["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    return attributes


def _of_answer(finished: Finished, attempt: Attempt, content: Content | None) -> Attributes:
    """What the host that answered said of it."""
    record, usage = finished.record, finished.record.usage
    if record.ttft_seconds is None:
        return {}
    attributes: Attributes = {
        "gen_ai.response.model": record.model,
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "corral.usage.accounting": usage.accounting.value,
        "corral.chunks": record.chunks,
        "corral.chunk_gap.max": record.max_gap_seconds,
        "corral.cold": record.cold,
    }
    if record.stream:
        attributes["gen_ai.response.time_to_first_chunk"] = max(0.0, record.ttft_seconds - attempt.at_seconds)
    for name, seconds in (
        ("load", usage.load_seconds),
        ("prompt_eval", usage.prefill_seconds),
        ("eval", usage.decode_seconds),
    ):
        if seconds:
            attributes[f"ollama.{name}_duration"] = seconds
    if reasons := _REASON.findall(finished.tail):
        attributes["gen_ai.response.finish_reasons"] = [reasons[-1].decode()]
    if content is not None and attempt.status < 400:
        attributes |= content.answer(finished.said)
    return attributes


def _of_stream(record: GenerationRecord, attempt: Attempt, start: float) -> tuple[Happening, ...]:
    events = []
    if record.ttft_seconds is not None:
        events.append(Happening("gen_ai.first_chunk", record.received_at + record.ttft_seconds, {}))
    if attempt.outcome is AttemptOutcome.CANCELLED and record.cancelled_by is not None:
        who: Attributes = {"corral.source": record.cancelled_by.value, "corral.phase": record.phase.value}
        events.append(Happening("corral.cancelled", start + attempt.seconds, who))
    return tuple(events)


def _asked(finished: Finished, content: Content | None) -> Attributes:
    """What the body asks for; nothing of one that was too large to keep, or that is no JSON as it stands."""
    try:
        fields = fields_of(finished.request.body)
        options = (
            msgspec.json.decode(fields["options"], type=dict[str, msgspec.Raw] | None) if "options" in fields else None
        )
    except (BadRequest, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    found: Attributes = {}
    given = fields | (options or {})
    for name, kind, keys in _PARAMETERS:
        for key in keys:
            if (value := _number(given.get(key))) is not None:
                found[name] = kind(value)
    if (stop := _texts(given.get("stop"))) is not None and content is not None:
        found["gen_ai.request.stop_sequences"] = stop
    if "format" in fields and bytes(fields["format"]) not in (b'""', b"null"):
        found["gen_ai.output.type"] = "json"
    return found | (content.prompt(fields) if content is not None else {})


def _number(raw: msgspec.Raw | None) -> float | int | None:
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=float | int)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if abs(value) < 2**63 else None


def _texts(raw: msgspec.Raw | None) -> list[str] | None:
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=str | list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return [value] if isinstance(value, str) else value
