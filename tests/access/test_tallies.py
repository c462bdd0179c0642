"""What keys use, and when they have had enough."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import Key
from gateway.access.limits import Limits
from gateway.access.rights import KeyRole
from gateway.access.tallies import DAYS_MOST, Elsewhere, Stay, Tallies
from gateway.access.windows import DAY_SECONDS, Spent
from gateway.errors import OverBudget, RateLimited
from tests.profiles import PROPERTY

MIDNIGHT = 1_798_761_600.0  # of 2027-01-01
TODAY = int(MIDNIGHT // DAY_SECONDS)


@dataclass
class Streaming:
    """A generation that has said so much."""

    tokens: int = 0


@dataclass
class Desk:
    """Tallies of one key, ``ann``, and a clock that is set by hand."""

    limits: Limits
    now: float = 100.0
    at: float = MIDNIGHT + 100
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = Tallies(lambda: self.now, lambda: self.at, lambda _name, limit: self.refused.append(limit))
        self.tallies.configure([Key("ann", KeyRole.USER, "", limits=self.limits)])

    def go(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.at += seconds

    def ask(self, tokens: tuple[int, int] = (0, 0)) -> None:
        """One request, from its beginning to its end."""
        self.tallies.admit("ann", "ollama")
        stay = self.tallies.enter("ann", Streaming())
        self.tallies.leave(stay, *tokens)

    def refusal(self) -> RateLimited:
        """What one more request is told."""
        with pytest.raises(RateLimited) as told:
            self.tallies.admit("ann", "ollama")
        return told.value


def test_requests_a_minute() -> None:
    """As many as may, in any 60 seconds; those that were refused do not count; and Retry-After is kept."""
    desk = Desk(Limits(rpm=3))
    for _ in range(3):
        desk.ask()
        desk.go(10)
    for _ in range(5):
        refused = desk.refusal()
    assert refused.retry_after == pytest.approx(31.0)
    assert desk.refused == ["rpm"] * 5
    desk.go(refused.retry_after - 0.01)
    desk.refusal()
    desk.go(0.02)
    desk.ask()
    assert dict(desk.refusal().headers)["RateLimit"] == '"rpm";r=0;t=61'


def test_tokens_count_as_they_come() -> None:
    """A stream that runs over is not cut; who comes next is refused until its tokens are a minute old."""
    desk = Desk(Limits(tpm=100))
    desk.tallies.admit("ann", "ollama")
    stream = Streaming()
    stay = desk.tallies.enter("ann", stream)
    stream.tokens = 60
    desk.ask()
    desk.go(30)
    stream.tokens = 130
    assert desk.refusal().retry_after == pytest.approx(31.0)  # then the first 60 are gone
    desk.tallies.leave(stay, 20, 135)
    tally = desk.tallies.of("ann")
    assert (tally.minute_tokens.used(desk.now), tally.day) == (155, Spent(2, 20, 135))
    desk.go(31)
    desk.ask()
    assert tally.minute_tokens.used(desk.now) == 95


def test_what_is_told_in_the_end_counts() -> None:
    """The host knows better how much it said; it may be less."""
    desk = Desk(Limits(tpm=100))
    stream = Streaming(50)
    stay = desk.tallies.enter("ann", stream)
    desk.tallies.all()
    desk.tallies.leave(stay, 7, 45)
    assert desk.tallies.of("ann").day == Spent(0, 7, 45)


def test_at_a_time() -> None:
    """Those that wait or run, here and elsewhere; one that ended makes room at once."""
    desk = Desk(Limits(concurrency=2))
    stays = [desk.tallies.enter("ann", Streaming()) for _ in range(2)]
    assert desk.refusal().retry_after == 1.0
    desk.tallies.leave(stays[0], 0, 0)
    desk.tallies.admit("ann", "ollama")
    desk.tallies.hear({"ann": Elsewhere(running=1)}, TODAY)
    desk.refusal()
    assert desk.refused == ["concurrency"] * 2


@pytest.mark.parametrize(
    ("limits", "words", "days"), [(Limits(day=100), "this day", 1), (Limits(month=100), "this month", 31)]
)
def test_budgets(limits: Limits, words: str, days: int) -> None:
    """Of days and months of UTC: used up until the next begins, then there is all of it again."""
    desk = Desk(limits)
    desk.ask((60, 0))
    desk.ask((0, 60))
    refused = desk.refusal()
    assert isinstance(refused, OverBudget)
    assert words in refused.message
    assert refused.retry_after == pytest.approx(days * DAY_SECONDS - 100)
    desk.go(refused.retry_after - 1)
    desk.refusal()
    desk.go(1)
    desk.ask((100, 0))
    desk.refusal()


def test_elsewhere() -> None:
    """What other gateways tell counts as one's own; what they tell of another day does not."""
    desk = Desk(Limits(rpm=10, tpm=100, day=1000, month=5000))
    told = Elsewhere(Spent(1, 400, 500), Spent(9, 4000, 500), 5, 50, 1)
    desk.ask((10, 10))
    desk.tallies.hear({"ann": told}, TODAY)
    standings = {limit: used for limit, _, used, _ in desk.tallies.standings("ann")}
    assert standings == {"month": 4520, "day": 920, "tpm": 70, "rpm": 6}
    desk.tallies.alone()
    standings = {limit: used for limit, _, used, _ in desk.tallies.standings("ann")}
    assert standings == {"month": 4520, "day": 920, "tpm": 20, "rpm": 1}
    desk.tallies.hear({"ann": told}, TODAY - 1)
    assert desk.tallies.of("ann").all_day == Spent(1, 10, 10)


def test_limits_of_a_key_can_be_others() -> None:
    """What was used was used; who goes is kept until it is written what they used."""
    desk = Desk(Limits(rpm=1))
    desk.ask()
    desk.refusal()
    desk.tallies.configure([Key("ann", KeyRole.USER, "", limits=Limits(rpm=2))])
    desk.ask()
    desk.refusal()
    desk.tallies.configure([])
    assert [tally.name for tally in desk.tallies.all()] == ["ann"]
    desk.ask()
    tally = desk.tallies.of("ann")
    tally.written(TODAY, Spent(2))  # not the last word
    assert tally.days == {TODAY: Spent(3)}
    tally.written(TODAY, Spent(3))
    desk.tallies.configure([])
    assert desk.tallies.all() == []


def test_days_that_nobody_writes_down() -> None:
    """Are not remembered for ever."""
    desk = Desk(Limits())
    for _ in range(2 * DAYS_MOST):
        desk.ask((1, 1))
        desk.go(DAY_SECONDS)
    assert len(desk.tallies.of("ann").days) <= DAYS_MOST + 1


def test_without_limits_nothing_is_told() -> None:
    """But it is counted."""
    desk = Desk(Limits())
    desk.ask((1, 2))
    assert desk.tallies.told("ann", "openai") == desk.tallies.told("nobody", "openai") == ()
    assert desk.tallies.of("ann").month == Spent(1, 1, 2)


steps = st.lists(
    st.tuples(st.floats(0.01, 25.0), st.sampled_from(["ask", "say", "end"]), st.integers(0, 400)), max_size=80
)


@given(steps=steps, rpm=st.integers(1, 6), concurrency=st.integers(1, 4), tpm=st.integers(1, 1000))
@PROPERTY
def test_whatever_happens(steps: list[tuple[float, str, int]], rpm: int, concurrency: int, tpm: int) -> None:
    """In no 60 seconds are more let in than may be, nor at a time; nobody is let in while the minute's tokens are used up; and all is counted once."""
    desk = Desk(Limits(rpm=rpm, concurrency=concurrency, tpm=tpm))
    running: list[tuple[Streaming, Stay]] = []
    let_in: list[float] = []
    said: list[tuple[float, int]] = []
    waits: list[float] = []
    prompts = 0
    for seconds, what, number in steps:
        desk.go(seconds)
        if what == "ask":
            fresh = sum(tokens for at, tokens in said if at > desk.now - 60)
            try:
                desk.tallies.admit("ann", "ollama")
            except RateLimited as refused:
                waits.append(refused.retry_after or 0.0)
                continue
            assert fresh < tpm
            let_in.append(desk.now)
            stream = Streaming()
            running.append((stream, desk.tallies.enter("ann", stream)))
            assert len(running) <= concurrency
            assert sum(at > desk.now - 60 for at in let_in) <= rpm
        elif running and what == "say":
            running[number % len(running)][0].tokens += number
            desk.tallies.all()
            said.append((desk.now, number))
        elif running:
            stream, stay = running.pop(number % len(running))
            desk.tallies.leave(stay, number, stream.tokens)
            prompts += number
            said.append((desk.now, number))
    assert all(0 < wait <= 61 for wait in waits)
    assert desk.tallies.of("ann").running == len(running)
    desk.go(1)
    desk.tallies.all()
    assert desk.tallies.of("ann").month == Spent(len(let_in), prompts, sum(tokens for _, tokens in said) - prompts)
