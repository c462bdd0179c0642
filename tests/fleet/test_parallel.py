"""How many requests run at once is found from answers, whatever was thought before."""

import heapq
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.parallel import (
    ALONE_MOST_SECONDS,
    FOUND_MOST,
    PAUSE_MOST_SECONDS,
    PAUSE_SECONDS,
    RUNS_REMEMBERED,
    WAIT_SECONDS,
    WAITS,
    Parallel,
    Run,
)
from tests.profiles import PROPERTY


class Host:
    """That runs so many at once, first come, first served; always as many are out as may be. ``seconds``: of each request, in turn."""

    def __init__(self, slots: int, seconds: tuple[float, ...] = (3.0, 4.0, 2.5)) -> None:
        self.now = 0.0
        self._slots, self._seconds = [0.0] * slots, seconds
        self._out: list[tuple[float, int, Run]] = []
        self._sent = 0

    def send(self) -> None:
        """One more request."""
        began = max(self.now, heapq.heappop(self._slots))
        ended = began + self._seconds[self._sent % len(self._seconds)]
        heapq.heappush(self._slots, ended)
        self._sent += 1
        run = Run(len(self._out) + 1, False, began, ended, began - self.now)
        heapq.heappush(self._out, (ended, self._sent, run))

    def answer(self) -> Run:
        """The next that is done."""
        self.now, _, run = heapq.heappop(self._out)
        return run

    def serve(self, known: Parallel, answers: int) -> int:
        """A crowd of requests; how many of them had to wait at the host."""
        waited = 0
        for _ in range(answers):
            while len(self._out) < known.limit:
                self.send()
            run = self.answer()
            waited += run.idle > WAIT_SECONDS
            known.learn(run, ours=True)
        return waited


@pytest.mark.parametrize("slots", [1, 2, 4, FOUND_MOST])
def test_from_nothing(slots: int) -> None:
    """One more after the other is tried, until one waits: it, and those that were sent before it told."""
    host, known = Host(slots), Parallel(1, FOUND_MOST)
    assert host.serve(known, 12 * slots) <= (slots + 1 if slots < FOUND_MOST else 0)
    assert (known.limit, known.proved) == (slots, slots)


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("said", [1, 2, 4, 16])
def test_what_is_configured_is_the_most(slots: int, said: int) -> None:
    """Too many are found out after a few that waited; never are there more."""
    host, known = Host(slots), Parallel(said, said)
    assert host.serve(known, 60) <= WAITS * said + said
    assert known.proved == min(slots, said)


def test_a_try_that_failed_is_paused() -> None:
    """Each time for twice as long, up to a bound; two answers wait for each try: it, and one that was sent before it told."""
    host, known = Host(1), Parallel(1, FOUND_MOST)
    tries = [host.now for _ in range(30_000) if host.serve(known, 1)][::2]
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert [pause / PAUSE_SECONDS for pause in pauses[:4]] == pytest.approx([2.0, 4.0, 8.0, 16.0], rel=0.02)
    assert max(pauses) == pytest.approx(PAUSE_MOST_SECONDS, rel=0.02)


def test_a_host_that_runs_more_from_now_on() -> None:
    """It was started again with another OLLAMA_NUM_PARALLEL: that is found when the pause is over."""
    known = Parallel(4, 4)
    Host(1).serve(known, 20)
    assert known.limit == 1
    host = Host(4)
    host.now = 1000.0
    host.serve(known, 500)
    assert known.proved == 4


def test_a_host_that_runs_fewer_from_now_on() -> None:
    """What was proved before does not count against what is seen now."""
    known = Parallel(1, FOUND_MOST)
    Host(4).serve(known, 60)
    assert known.proved == 4
    later = Host(2)
    later.now = 1000.0
    later.serve(known, 60)
    assert known.proved == 2


def told(known: Parallel, *runs: Run, ours: bool = True) -> Parallel:
    """What is known after these."""
    for run in runs:
        known.learn(run, ours=ours)
    return known


def waited(beside: int, at: float = 0.0) -> Run:
    """One that had to wait."""
    return Run(beside, False, at + 5.0, at + 9.0, 5.0)


def waits(beside: int, count: int) -> list[Run]:
    """So many, one after the other."""
    return [waited(beside, 10.0 * number) for number in range(count)]


NOT_TOLD = {
    "too short": [Run(1, True, at, at + WAIT_SECONDS / 2, 0.0) for at in range(20)],
    "it waited alone: somebody else uses the host": [waited(1, 10.0 * at) for at in range(20)],
    "the same wait as alone": [Run(1 + at % 2, at % 2 == 0, 10.0 * at, 10.0 * at + 4.0, 0.9) for at in range(20)],
}


@pytest.mark.parametrize("name", ["too short", "it waited alone: somebody else uses the host"])
def test_what_shows_nothing_of_fewer(name: str) -> None:
    """The limit is not lowered."""
    assert told(Parallel(2, 2), *NOT_TOLD[name]).limit == 2


def test_what_an_answer_takes_beside_its_parts() -> None:
    """Images to look at, a grammar to make: that is no waiting, if it is so alone too. But not for ever so long."""
    assert told(Parallel(2, 2), *NOT_TOLD["the same wait as alone"]).limit == 2
    slow = [Run(1, True, 10.0 * at, 10.0 * at + 4.0, 9.0) for at in range(20)]
    late = [one._replace(idle=ALONE_MOST_SECONDS + 1.0) for one in waits(2, WAITS)]
    assert told(Parallel(2, 2), *slow, *late).limit == 1


def test_others_at_the_host() -> None:
    """Where other gateways hold slots a wait tells nothing."""
    assert told(Parallel(4, 4), *waits(2, 20), ours=False).limit == 4


def test_one_that_ran_beside_others_makes_good() -> None:
    """Waits were somebody else's doing, if as many were seen together since."""

    def seen(beside: int, at: float) -> list[Run]:
        return [waited(beside, at), Run(1, False, at + 20.0, at + 24.0, 0.0), Run(2, False, at + 20.5, at + 24.5, 0.0)]

    assert told(Parallel(4, 4), *[run for at in range(20) for run in seen(2, 100.0 * at)]).limit == 4
    assert told(Parallel(4, 4), *[run for at in range(WAITS) for run in seen(3, 100.0 * at)]).limit == 2, (
        "it proves no more"
    )


def test_one_that_was_sent_before() -> None:
    """Those that waited because more were let out then tell nothing of what may be out now."""
    known = told(Parallel(4, 4), *waits(3, WAITS))
    assert told(known, *waits(4, 20)[WAITS:]).limit == 2


RUNS = st.builds(
    lambda beside, began, seconds, idle: Run(beside, beside == 1, began, began + seconds, idle),
    st.integers(1, 20),
    st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.floats(0, 1e4),
)


@PROPERTY
@given(st.integers(1, FOUND_MOST), st.lists(st.tuples(RUNS, st.booleans()), max_size=60))
def test_bounds(most: int, runs: list[tuple[Run, bool]]) -> None:
    """Whatever is told: at least one, at most as many as may be, one more than proved at most; it says when something changed."""
    known = Parallel(1, most)
    for run, ours in runs:
        before = known.limit, known.proved
        changed = known.learn(run, ours=ours)
        assert 1 <= known.proved <= known.limit <= most
        assert known.limit - known.proved <= 1
        assert changed or (known.limit, known.proved) == before
        assert len(known._runs) <= RUNS_REMEMBERED
