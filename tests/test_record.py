"""The record: what is derived from it, and that it is one frozen value that can be written down."""

import json

import msgspec
import pytest

from gateway.record import Accounting, Attempt, AttemptOutcome, GenerationRecord, Outcome, Usage
from tests.telemetry.builders import GOOD, RECORD, ROUTE, record, unserved

FAILED = Attempt("gpu2", AttemptOutcome.CONNECT_ERROR, 0.0, 0.25)


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        pytest.param(RECORD, 0.5, id="beside queue and host"),
        pytest.param(record(attempts=(FAILED, GOOD)), 0.25, id="beside all attempts"),
        pytest.param(record(attempts=()), 3.5, id="no host at all"),
        pytest.param(record(duration_seconds=3.0), 0.0, id="never negative"),
    ],
)
def test_overhead(made: GenerationRecord, seconds: float) -> None:
    """What is neither the queue's time nor a host's is the gateway's own."""
    assert made.overhead_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        pytest.param(RECORD, 2.25 / 24, id="a stream"),
        pytest.param(record(usage=Usage(1, 2)), 2.25, id="two tokens"),
        pytest.param(record(usage=Usage(1, 1)), None, id="one token"),
        pytest.param(record(usage=Usage()), None, id="no token"),
        pytest.param(record(stream=False), None, id="no stream"),
        pytest.param(record(ttft_seconds=None), None, id="no first byte"),
    ],
)
def test_pace(made: GenerationRecord, seconds: float | None) -> None:
    """Seconds for each output token after the first."""
    assert made.seconds_per_output_token == (None if seconds is None else pytest.approx(seconds))


def test_a_route_knows_its_runner_up() -> None:
    """And what it predicted."""
    assert (ROUTE.predicted_seconds, ROUTE.runner_up) == (0.5, "gpu2")
    alone = msgspec.structs.replace(ROUTE, costs=ROUTE.costs[:1])
    assert alone.runner_up is None


def test_a_record_does_not_change() -> None:
    """It is a fact."""
    with pytest.raises(AttributeError):
        RECORD.outcome = Outcome.CANCELLED  # type: ignore[misc]


@pytest.mark.parametrize("made", [RECORD, unserved(Outcome.NO_HOST, 503)], ids=["served", "not served"])
def test_a_record_is_written_and_read(made: GenerationRecord) -> None:
    """Its JSON holds all of it."""
    assert msgspec.json.decode(msgspec.json.encode(made), type=GenerationRecord) == made


def test_what_is_derived_is_not_stored() -> None:
    """No number is there twice."""
    keys = set(json.loads(msgspec.json.encode(RECORD)))
    assert keys == set(GenerationRecord.__struct_fields__)
    assert not keys & {"overhead_seconds", "seconds_per_output_token"}


def test_nothing_reported_is_counted() -> None:
    """Until a host says otherwise, tokens are our own count."""
    assert Usage().accounting is Accounting.COUNTED
