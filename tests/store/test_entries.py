"""Rows fit their columns whatever was said, and sums add up."""

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.record import Accounting, Attempt, AttemptOutcome, CancelSource, GenerationRecord, Outcome, Usage
from gateway.store import entries as module
from gateway.store.entries import BIG_MOST, MOST, Entry, Row, bucket, hours, minutes, ordered, row
from gateway.store.schema import HISTOGRAM_BUCKETS, requests, rollup_1h, rollup_1m
from tests.store.recorded import NOW, numbered
from tests.telemetry.builders import GOOD, RECORD, cancelled, record, unserved

FAILED = Attempt("gpu2", AttemptOutcome.CONNECT_ERROR, 0.0, 0.25, 0, "refused")
LONG = "x" * 1000


def test_a_row_is_a_row_of_the_table() -> None:
    """Every column, in the table's order; the sums as well."""
    assert Row._fields == tuple(requests.columns.keys())
    for table in (rollup_1m, rollup_1h):
        assert len(table.columns) == module.KEYS + module.SUMS + 2 * HISTOGRAM_BUCKETS
        assert len(ordered(minutes([Entry(row(RECORD, "r"), "m")]))[0]) == len(table.columns)


def test_an_ordinary_request() -> None:
    """Microseconds since 1970, milliseconds, and nothing to explain."""
    made = row(RECORD, "here")
    assert (made.ts_us, made.replica, made.outcome, made.host) == (1_795_354_517_250_000, "here", "ok", "gpu1")
    assert (made.queue_ms, made.ttft_ms, made.total_ms, made.predicted_ms) == (250.0, 1500.0, 3750.0, 500.0)
    assert (made.input_tokens, made.output_tokens, made.reported, made.runner_up) == (14, 25, True, "gpu2")
    assert made.detail is None


@pytest.mark.parametrize(
    ("made", "keys"),
    [
        pytest.param(record(attempts=(FAILED, GOOD)), {"attempts", "costs", "rejected"}, id="a second attempt"),
        pytest.param(record(detached=True), {"attempts", "costs", "rejected"}, id="detached"),
        pytest.param(cancelled(), {"attempts", "costs", "rejected", "cancel_seconds"}, id="cancelled"),
        pytest.param(unserved(Outcome.NO_HOST, 503), {"attempts"}, id="no host"),
    ],
)
def test_what_is_odd_is_explained(made: GenerationRecord, keys: set[str]) -> None:
    """Attempts with their reasons, what each host would have cost, who was left out and why."""
    detail = json.loads(row(made, "r").detail or "")
    assert set(detail) == keys
    assert len(detail["attempts"]) == len(made.attempts)
    if "rejected" in detail:
        assert detail["rejected"] == [{"host": "gpu3", "code": "circuit_open", "why": "is ejected: refused"}]


def test_what_cannot_be_stored_is_mended() -> None:
    """NUL, half characters, numbers without end, texts without end."""
    odd = record(
        requested_model="a\0b\ud800c" + LONG,
        reason="ends \0here",
        session=LONG,
        client="é" * 100,
        queue_seconds=math.nan,
        usage=Usage(2**70, -5, Accounting.REPORTED, math.inf, 0.0, 0.0),
        bytes_out=2**70,
        attempts=(msgspec.structs.replace(FAILED, why="half \ud800, none \0"), GOOD),
    )
    made = row(odd, "r")
    assert made.requested_model == ("ab?c" + LONG)[:256]
    assert (made.reason, made.session, made.client) == ("ends here", "x" * 128, "é" * 64)
    assert (made.queue_ms, made.load_ms, made.input_tokens, made.output_tokens) == (0.0, 0.0, MOST, 0)
    assert made.bytes_out == BIG_MOST
    assert json.loads(made.detail or "")["attempts"][0]["why"].startswith("half ")


@given(st.text(st.characters(codec=None), max_size=300), st.integers(0, 300))
def test_any_text_can_be_stored(value: str, length: int) -> None:
    """It can be encoded, holds no NUL and is not too long; what was good already is cut at most."""
    made = module.text(value, length)
    made.encode()
    assert "\0" not in made
    assert len(made) <= length
    if "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value):
        assert made == value[:length]


@pytest.mark.parametrize(
    ("ms", "number"),
    [(0.0, 0), (1.0, 0), (1.1, 1), (2.0, 2), (2.1, 3), (1000.0, 20), (2.0**19, 38), (2.0**19 + 1, 39), (1e12, 39)],
)
def test_buckets(ms: float, number: int) -> None:
    """Bucket i ends at 2 ** (i / 2) ms; the last has no end."""
    assert bucket(ms) == number


def entries(*records: GenerationRecord) -> list[Entry]:
    """As they wait to be written."""
    return [Entry(row(one, "r"), one.model) for one in records]


def test_sums() -> None:
    """Of a minute, by model, host, principal and outcome; an answer in one piece has no first token."""
    sums = minutes(
        entries(
            *numbered(2),
            *numbered(1, cold=True, stream=False),
            *numbered(1, received_at=NOW + 60, usage=Usage(1, 2)),
            *numbered(1, outcome=Outcome.UPSTREAM_ERROR),
        )
    )
    minute = int(NOW // 60)
    first = sums[minute, RECORD.model, "gpu1", "", "ok"]
    assert first[: module.SUMS] == [3, 1, 2, 3, 42, 75, 75, 7500.0, 750.0, 3000.0, 11250.0]
    first_token, duration = first[module.SUMS :][:HISTOGRAM_BUCKETS], first[module.SUMS :][HISTOGRAM_BUCKETS:]
    assert (first_token[bucket(1500.0)], sum(first_token)) == (2, 2)
    assert (duration[bucket(3750.0)], sum(duration)) == (3, 3)
    assert sums[minute + 1, RECORD.model, "gpu1", "", "ok"][6:8] == [0, 0]  # counted tokens have no pace
    assert len(sums) == 3
    assert [key[:5] for key in ordered(sums)] == sorted(sums)


def test_an_hour_is_the_sum_of_its_minutes() -> None:
    """And ends where the next begins."""
    sums = minutes(entries(*[one for minute in range(30) for one in numbered(2, received_at=NOW + 60 * minute)]))
    by_hour = hours(sums)
    assert [int(numbers[0]) for _, numbers in sorted(by_hour.items())] == [50, 10]
    assert [sum(column) for column in zip(*by_hour.values(), strict=True)] == [
        sum(column) for column in zip(*sums.values(), strict=True)
    ]


def test_a_cancelled_request_says_by_whom() -> None:
    """And where it was."""
    made = row(cancelled(CancelSource.OPERATOR), "r")
    assert (made.outcome, made.cancelled_by, made.phase) == ("cancelled", "api", "streaming")
