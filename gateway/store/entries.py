"""What a record becomes in the database: one row, and its share in the sums of a minute and an hour.

Pure. Everything a row holds fits its column on both kinds of database: no NUL, no half characters, no number that is too large, text cut
to length. So a batch is refused for nothing that a client or a host can say.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from gateway.record import Accounting, GenerationRecord, Outcome
from gateway.store.schema import HISTOGRAM_BUCKETS

BOUNDS_MS = [2 ** (number / 2) for number in range(HISTOGRAM_BUCKETS - 1)]
"""Where the buckets of the histograms end; the last has no end."""

MINUTE_US = 60_000_000
MINUTES_AN_HOUR = 60
MOST, SMALL_MOST, BIG_MOST = 2**31 - 1, 2**15 - 1, 2**63 - 1
HOSTS_TOLD = 64  # of those that a decision priced or left out; a detail stays readable
WHY_LENGTH = 500
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Row(NamedTuple):
    """A row of ``requests``, its columns in their order."""

    ts_us: int
    id: str
    replica: str
    session: str | None
    principal: str
    client: str
    model: str
    requested_model: str
    host: str | None
    dialect: str
    endpoint: str
    operation: str
    stream: bool
    detached: bool
    outcome: str
    reason: str
    phase: str
    cancelled_by: str | None
    status: int
    cold: bool
    queue_ms: float
    ttft_ms: float | None
    total_ms: float
    max_gap_ms: float
    load_ms: float
    prefill_ms: float
    decode_ms: float
    input_tokens: int
    output_tokens: int
    reported: bool
    chunks: int
    bytes_in: int
    bytes_out: int
    attempts: int
    route_reason: str | None
    predicted_ms: float | None
    runner_up: str | None
    detail: str | None
    priority: str


class Entry(NamedTuple):
    """What waits to be written. ``label``: the model's name in the sums, where what clients make up has no place."""

    row: Row
    label: str


def row(record: GenerationRecord, replica: str) -> Row:
    """The row of one record. Never raises."""
    usage, route, host = record.usage, record.route, record.host
    return Row(  # in the order of its fields: naming 39 of them costs two microseconds
        int(record.received_at * 1e6),
        text(record.id, 32),
        replica,
        None if record.session is None else text(record.session, 128),
        text(record.principal, 128),
        text(record.client, 64),
        text(record.model, 256),
        text(record.requested_model, 256),
        None if host is None else text(host, 64),
        text(record.dialect, 16),
        text(record.endpoint, 64),
        text(record.operation, 32),
        record.stream,
        record.detached,
        record.outcome.value,
        text(record.reason, WHY_LENGTH),
        record.phase.value,
        None if record.cancelled_by is None else record.cancelled_by.value,
        whole(record.status, SMALL_MOST),
        record.cold,
        milliseconds(record.queue_seconds),
        None if record.ttft_seconds is None else milliseconds(record.ttft_seconds),
        milliseconds(record.duration_seconds),
        milliseconds(record.max_gap_seconds),
        milliseconds(usage.load_seconds),
        milliseconds(usage.prefill_seconds),
        milliseconds(usage.decode_seconds),
        whole(usage.input_tokens, MOST),
        whole(usage.output_tokens, MOST),
        usage.accounting is Accounting.REPORTED,
        whole(record.chunks, MOST),
        whole(record.bytes_in, BIG_MOST),
        whole(record.bytes_out, BIG_MOST),
        whole(len(record.attempts), SMALL_MOST),
        None if route is None else route.reason.value,
        None if route is None else milliseconds(route.predicted_seconds),
        None if route is None or route.runner_up is None else text(route.runner_up, 64),
        detail(record),
        record.priority,
    )


def _plain(record: GenerationRecord) -> bool:
    """Whether there is no more to tell than its ids."""
    sent = len(record.attempts) == 1 and not record.detached and not record.clamped_from
    return record.outcome is Outcome.OK and sent


def detail(record: GenerationRecord) -> str | None:
    """What explains a request, as JSON: attempts, what each host would have cost, who was left out; the caller's name for it and its trace. None where
    there is nothing to say."""
    told: dict[str, Any] = {}
    if record.request_id not in ("", record.id):
        told["request_id"] = record.request_id
    if record.trace_id:
        told["trace_id"] = record.trace_id
    if _plain(record):
        return _encode(told).decode() if told else None
    told["attempts"] = record.attempts
    if record.cancel_seconds is not None:
        told["cancel_seconds"] = record.cancel_seconds
    if record.clamped_from:
        told["clamped_from"] = record.clamped_from
    if record.route is not None:
        told["costs"] = record.route.costs[:HOSTS_TOLD]
        told["rejected"] = record.route.rejected[:HOSTS_TOLD]
    try:
        return _encode(told).decode().replace("\\u0000", "")
    except ValueError:  # half a character, in a host's words: JSON can still say it, a database cannot
        return clean(json.dumps(msgspec.to_builtins(told, enc_hook=str), ensure_ascii=False))


def text(value: str, length: int) -> str:
    """As the database takes it, so many characters at most."""
    if not value.isascii() or "\0" in value:
        value = clean(value)
    return value if len(value) <= length else value[:length]


def clean(value: str) -> str:
    """Without NUL, with ``?`` for half characters."""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def whole(number: int, most: int) -> int:
    """Between 0 and ``most``."""
    return number if 0 <= number <= most else max(0, min(number, most))


def milliseconds(seconds: float) -> float:
    """Finite: a host may say anything."""
    return seconds * 1000 if isfinite(seconds) else 0.0


def bucket(ms: float) -> int:
    """The number of a duration's bucket."""
    return bisect_left(BOUNDS_MS, ms)


# -- sums ----------------------------------------------------------------------------------------------------------------------

KEYS, SUMS = 5, 11
"""A sum begins with bucket, model, host, principal and outcome; then come the numbers; then the buckets of TTFT and of duration."""

Key = tuple[int, str, str, str, str]


def minutes(entries: Iterable[Entry]) -> dict[Key, list[float]]:
    """The sums of each minute: key → numbers, in the order of the table's columns."""
    sums: dict[Key, list[float]] = {}
    for one, label in entries:
        key = (one.ts_us // MINUTE_US, label, one.host or "", one.principal, one.outcome)
        into = sums.get(key)
        if into is None:
            into = sums[key] = [0] * (SUMS + 2 * HISTOGRAM_BUCKETS)
        into[0] += 1
        into[1] += one.cold
        into[3] += one.attempts
        into[4] += one.input_tokens
        into[5] += one.output_tokens
        if one.reported and one.decode_ms:
            into[6] += one.output_tokens
            into[7] += one.decode_ms
        into[8] += one.queue_ms
        if one.stream and one.output_tokens and one.ttft_ms is not None:  # as ``GenerationRecord.first_token_seconds``
            into[2] += 1
            into[9] += one.ttft_ms
            into[SUMS + bucket(one.ttft_ms)] += 1
        into[10] += one.total_ms
        into[SUMS + HISTOGRAM_BUCKETS + bucket(one.total_ms)] += 1
    return sums


def hours(of_minutes: dict[Key, list[float]]) -> dict[Key, list[float]]:
    """The same by the hour."""
    sums: dict[Key, list[float]] = {}
    for (minute, model, host, principal, outcome), numbers in of_minutes.items():
        key = (minute // MINUTES_AN_HOUR, model, host, principal, outcome)
        into = sums.get(key)
        sums[key] = numbers if into is None else [a + b for a, b in zip(into, numbers, strict=True)]
    return sums


def ordered(sums: dict[Key, list[float]]) -> list[tuple[Any, ...]]:
    """Rows of a table of sums, sorted: writers that take them in different orders would block each other for ever."""
    return [(*key, *sums[key]) for key in sorted(sums)]
