"""Jobs: what is told of them, how they end, and that only the last are kept."""

import asyncio
import random

import pytest

from gateway.fleet.host import Host
from gateway.fleet.jobs import KEPT, KINDS, Job, JobOutcome, Jobs
from gateway.fleet.progress import PartState
from gateway.fleet.targets import Targets

TWO = Targets((Host("a", "http://a"), Host("b", "http://b")), {})


def jobs() -> Jobs:
    """With a clock that stands still."""
    return Jobs(lambda: 5.0, lambda: 1000.0, random.Random(1))


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ((PartState.SUCCEEDED, PartState.SUCCEEDED), JobOutcome.SUCCEEDED),
        ((PartState.SUCCEEDED, PartState.FAILED), JobOutcome.PARTIAL),
        ((PartState.FAILED, PartState.FAILED), JobOutcome.FAILED),
        ((PartState.SUCCEEDED, PartState.STOPPED), JobOutcome.STOPPED),
        ((PartState.SUCCEEDED, PartState.RUNNING), JobOutcome.PARTIAL),
    ],
)
def test_outcomes(states: tuple[PartState, PartState], outcome: JobOutcome) -> None:
    """What its parts came to."""
    with jobs().track("pull", "m", TWO) as job:
        for part, state in zip(job.parts.values(), states, strict=True):
            part.state = state
    assert job.outcome is outcome
    assert not any(part.running for part in job.parts.values())


@pytest.mark.parametrize("error", [asyncio.CancelledError, ConnectionResetError])
def test_the_caller_leaves(error: type[BaseException]) -> None:
    """That is an outcome of its own."""
    with pytest.raises(error), jobs().track("pull", "m", TWO) as job:  # noqa: PT012
        job.parts["a"].end(PartState.SUCCEEDED)
        raise error
    assert (job.outcome, job.reason) == (JobOutcome.CANCELLED, "the caller left")
    assert [part.state for part in job.parts.values()] == [PartState.SUCCEEDED, PartState.STOPPED]


async def test_stopping() -> None:
    """The scope ends, its parts are stopped, nothing is raised; again does nothing."""
    with jobs().track("pull", "m", TWO) as job:
        async with job.scope():
            job.parts["a"].end(PartState.SUCCEEDED)
            assert job.stop("enough")
            assert not job.stop("more than enough")
            await asyncio.Event().wait()
        assert (job.parts["b"].state, job.parts["b"].error) == (PartState.STOPPED, "enough")
    assert job.outcome is JobOutcome.STOPPED
    assert not job.stop("late")


async def test_stopping_before_the_work_begins() -> None:
    """It never does."""
    with jobs().track("pull", "m", TWO) as job:
        job.stop("enough")
        async with job.scope():
            await asyncio.Event().wait()
    assert job.outcome is JobOutcome.STOPPED


async def test_a_timeout_of_the_work_is_none_of_the_scope() -> None:
    """It is raised."""
    with pytest.raises(TimeoutError), jobs().track("pull", "m", TWO) as job:
        async with job.scope():
            raise TimeoutError


async def test_an_end_before_the_caller_is_told() -> None:
    """It is the end: what becomes of the caller after it does not count."""
    known = jobs()
    with pytest.raises(ConnectionResetError), known.track("pull", "m", TWO) as job:  # noqa: PT012
        for part in job.parts.values():
            part.end(PartState.SUCCEEDED)
        known.end(job)
        await known.idle()
        assert list(known) == [job]
        raise ConnectionResetError
    assert (job.outcome, list(known), len(known)) == (JobOutcome.SUCCEEDED, [job], 0)


def test_only_the_last_are_kept() -> None:
    """Those that run are all there."""
    known = jobs()
    ended: list[Job] = []
    with known.track("push", "long", TWO) as running:
        for number in range(KEPT + 5):
            with known.track("pull", f"m{number}", TWO) as job:
                ended.append(job)
        assert list(known) == [running, *ended[5:]]
        assert len(known) == 1
        assert known.get(running.id) is running
    assert known.get(ended[-1].id) is ended[-1]
    assert known.get(ended[0].id) is None
    assert len({job.id for job in ended}) == KEPT + 5


async def test_idle() -> None:
    """Once none runs; stopping all tells how many."""
    known = jobs()
    await known.idle()
    with known.track("pull", "m", TWO):
        waiting = asyncio.get_running_loop().create_task(known.idle(), name="idle")
        assert known.stop_all("bye") == 1
        assert known.stop_all("bye") == 0
        assert not waiting.done()
    await waiting


def test_each_end_is_told_once() -> None:
    """To every sink, when the job has its outcome; what runs is counted by kind until then."""
    told: list[tuple[str, JobOutcome | None]] = []
    known = Jobs(lambda: 5.0, lambda: 1000.0, random.Random(1), [lambda job: told.append((job.kind, job.outcome))] * 2)
    with known.track("pull", "m", TWO) as job:
        assert (known.running()["pull"], sum(known.running().values())) == (1, 1)
        known.end(job)
        known.end(job, cancelled=True)
    assert told == [("pull", JobOutcome.FAILED)] * 2
    assert known.running() == dict.fromkeys(KINDS, 0)


def test_who_is_left_out_has_failed() -> None:
    """In what is told, not in the outcome."""
    with jobs().track("pull", "m", Targets(TWO.hosts[:1], {"b": "ejected: gone"})) as job:
        job.parts["a"].end(PartState.SUCCEEDED)
    assert job.outcome is JobOutcome.SUCCEEDED
    assert {name: (part.state, part.error) for name, part in job.everyone().items()} == {
        "a": ("succeeded", ""),
        "b": ("failed", "ejected: gone"),
    }
