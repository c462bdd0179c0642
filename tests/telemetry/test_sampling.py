"""Which traces are kept, and how many at most."""

from typing import Any

import pytest

from gateway.config import TracingConfig
from gateway.record import GenerationRecord, Outcome
from gateway.telemetry.sampling import ERRORS, Sampling
from tests.telemetry.builders import GOOD, RECORD, cancelled, record

QUIET = record(ttft_seconds=0.5)


def why(made: GenerationRecord, *, sampled: bool = False, **changes: Any) -> str:
    """Of the first one that a gateway sees."""
    return Sampling(TracingConfig("http://tempo:4318", **changes), 0.0).why(made, 0.0, sampled=sampled)[0]


@pytest.mark.parametrize(
    ("made", "sampled", "expected"),
    [
        pytest.param(QUIET, False, "", id="ordinary"),
        pytest.param(QUIET, True, "sampled", id="sampled"),
        pytest.param(record(ttft_seconds=2.5), False, "slow", id="begins late"),
        pytest.param(record(ttft_seconds=0.5, duration_seconds=61.0), False, "slow", id="takes long"),
        pytest.param(record(ttft_seconds=None, duration_seconds=1.0), False, "", id="never began"),
        pytest.param(record(ttft_seconds=0.5, attempts=(GOOD, GOOD)), False, "retried", id="retried"),
        pytest.param(record(ttft_seconds=0.5, cold=True), False, "cold", id="cold"),
        pytest.param(record(outcome=Outcome.UPSTREAM_ERROR), True, "error", id="an error first of all"),
        pytest.param(record(ttft_seconds=0.5, outcome=Outcome.CLIENT_ERROR), False, "", id="the caller's error"),
        pytest.param(cancelled(ttft_seconds=0.5), False, "", id="cancelled"),
    ],
)
def test_why(made: GenerationRecord, sampled: bool, expected: str) -> None:
    """What went wrong, or was slow, or is an example of the rest."""
    assert why(made, sampled=sampled) == expected


@pytest.mark.parametrize("outcome", Outcome)
def test_errors_only(outcome: Outcome) -> None:
    """Keeps what is the service's fault, whatever else there is."""
    made = record(outcome=outcome, cold=True, attempts=(GOOD, GOOD), ttft_seconds=9.0)
    assert why(made, sampled=True, mode="errors") == ("error" if outcome in ERRORS else "")


def test_what_stands_alone() -> None:
    """Errors are kept, the rest for another reason or not at all; as many as of everything else."""
    for mode, expected in (("sampled", ["error", "recovered", ""]), ("errors", ["error", "", ""])):
        sampling = Sampling(TracingConfig("http://tempo:4318", mode=mode), 0.0)  # type: ignore[arg-type]
        asked = [(True, "recovered"), (False, "recovered"), (False, "")]
        assert [sampling.why_alone(0.0, error=error, otherwise=word)[0] for error, word in asked] == expected
    few = Sampling(TracingConfig("http://tempo:4318", per_second=1.0), 0.0)
    assert [few.why_alone(0.0, error=True) for _ in range(2)] == [("error", False), ("", True)]
    assert few.why_alone(1.0, error=True) == ("error", False)


def test_thresholds() -> None:
    """Are configured."""
    assert why(RECORD, slow_first_byte_seconds=1.0) == why(RECORD, slow_seconds=3.0) == "slow"


def test_the_limit() -> None:
    """A second's worth at once, then as many as come back with time."""
    sampling = Sampling(TracingConfig("http://tempo:4318", per_second=3.0), 0.0)
    told = [sampling.why(QUIET, now, sampled=True) for now in (0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.7)]
    kept, over = ("sampled", False), ("", True)
    assert told == [kept, kept, kept, over, kept, over, kept]
    assert sampling.why(QUIET, 0.7, sampled=False) == ("", False)
    assert [sampling.why(QUIET, 99.0, sampled=True) for _ in range(4)] == [kept, kept, kept, over]


def test_all_is_all() -> None:
    """However many they are."""
    sampling = Sampling(TracingConfig("http://tempo:4318", mode="all", per_second=0.001), 0.0)
    assert [sampling.why(QUIET, 0.0, sampled=True) for _ in range(3)] == [("sampled", False)] * 3
