"""The breaker's table, row by row; and that no host is ever stuck outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.health import BreakerPolicy, Event, Health, State, after, at
from tests.profiles import PROPERTY

POLICY = BreakerPolicy(failures=3, eject_seconds=1.0, eject_max_seconds=60.0)
NOW = 100.0
STATES = {
    "new": Health(),
    "healthy": Health(State.HEALTHY, ""),
    "healthy but for a poll": Health(State.HEALTHY, "", poll_failures=1),
    "suspect by a poll": Health(State.SUSPECT, "x", poll_failures=1),
    "suspect by polls": Health(State.SUSPECT, "x", poll_failures=2),
    "suspect by a request": Health(State.SUSPECT, "x", attempt_failures=1),
    "suspect by requests": Health(State.SUSPECT, "x", attempt_failures=2),
    "suspect by a poll and requests": Health(State.SUSPECT, "x", poll_failures=1, attempt_failures=2),
    "ejected by polls": Health(State.EJECTED, "x", poll_failures=3, ejections=1),
    "ejected by requests": Health(State.EJECTED, "x", attempt_failures=3, ejections=1, until=101.0),
    "trial": Health(State.TRIAL, "x", attempt_failures=3, ejections=1, until=99.0),
}
OK, BAD, GONE, DID, FAILED = Event.POLL_OK, Event.POLL_FAILED, Event.UNREACHABLE, Event.ATTEMPT_OK, Event.ATTEMPT_FAILED
EXPECTED = {
    "new": {OK: "healthy", BAD: "suspect", GONE: "ejected", DID: "healthy", FAILED: "suspect"},
    "healthy": {OK: "healthy", BAD: "suspect", GONE: "ejected", DID: "healthy", FAILED: "suspect"},
    "healthy but for a poll": {OK: "healthy", BAD: "suspect", GONE: "ejected", DID: "healthy", FAILED: "suspect"},
    "suspect by a poll": {OK: "healthy", BAD: "suspect", GONE: "ejected", DID: "healthy", FAILED: "suspect"},
    "suspect by polls": {OK: "healthy", BAD: "ejected", GONE: "ejected", DID: "healthy", FAILED: "suspect"},
    "suspect by a request": {OK: "suspect", BAD: "suspect", GONE: "ejected", DID: "healthy", FAILED: "suspect"},
    "suspect by requests": {OK: "suspect", BAD: "suspect", GONE: "ejected", DID: "healthy", FAILED: "ejected"},
    "suspect by a poll and requests": {
        OK: "suspect",
        BAD: "suspect",
        GONE: "ejected",
        DID: "healthy",
        FAILED: "ejected",
    },
    "ejected by polls": {OK: "healthy", BAD: "ejected", GONE: "ejected", DID: "healthy", FAILED: "ejected"},
    "ejected by requests": {OK: "ejected", BAD: "ejected", GONE: "ejected", DID: "healthy", FAILED: "ejected"},
    "trial": {OK: "trial", BAD: "ejected", GONE: "ejected", DID: "healthy", FAILED: "ejected"},
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", EXPECTED)
def test_table(state: str, event: Event) -> None:
    """One cell of the table: a state, what happened, the state that follows."""
    assert after(STATES[state], event, NOW, POLICY, "why").state == EXPECTED[state][event]


@pytest.mark.parametrize(
    ("state", "breaker"),
    [("healthy", "closed"), ("suspect", "closed"), ("ejected", "open"), ("trial", "half_open")],
)
def test_breaker_words(state: str, breaker: str) -> None:
    """Each state has a circuit breaker's word."""
    assert Health(State(state)).breaker == breaker


@pytest.mark.parametrize(("name", "event"), [("healthy", Event.ATTEMPT_OK), ("healthy", Event.POLL_OK)])
def test_nothing_new_is_nothing_made(name: str, event: Event) -> None:
    """Good news of a healthy host costs nothing: the same object comes back."""
    assert after(STATES[name], event, NOW, POLICY) is STATES[name]


@pytest.mark.parametrize("event", [Event.POLL_FAILED, Event.UNREACHABLE, Event.ATTEMPT_FAILED])
@pytest.mark.parametrize("state", STATES)
def test_bad_news_are_kept(state: str, event: Event) -> None:
    """The last failure's time is kept for the penalty, and its words if they changed the state."""
    health = after(STATES[state], event, NOW, POLICY, "why")
    assert health.failed_at == NOW
    assert health.why == "why" or health.state is STATES[state].state is State.EJECTED


def test_a_healthy_host_remembers_no_failures() -> None:
    """One good answer clears the counts, but not when the last failure was."""
    health = after(STATES["suspect by requests"], Event.ATTEMPT_FAILED, NOW, POLICY)
    health = after(at(health, NOW + 1.0), Event.ATTEMPT_OK, NOW + 2.0, POLICY)
    assert health == Health(State.HEALTHY, "", NOW + 2.0, failed_at=NOW)


# -- trials -----------------------------------------------------------------------------------------------------------------------


def test_a_trial_begins_when_its_time_is_up() -> None:
    """Not before, and never for a host that polls have ejected."""
    ejected = STATES["ejected by requests"]
    assert at(ejected, 100.9) is ejected
    assert at(ejected, 101.0).state is State.TRIAL
    assert at(STATES["ejected by polls"], 1e9) is STATES["ejected by polls"]


@pytest.mark.parametrize(
    ("trials", "seconds"), [(0, 1.0), (1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (7, 60.0), (40, 60.0)]
)
def test_each_failed_trial_doubles_the_ejection(trials: int, seconds: float) -> None:
    """Up to the longest."""
    health, now = STATES["suspect by requests"], NOW
    health = after(health, Event.ATTEMPT_FAILED, now, POLICY)
    for _ in range(trials):
        now = health.until
        health = after(at(health, now), Event.ATTEMPT_FAILED, now, POLICY)
    assert health.until - now == pytest.approx(seconds)


def test_a_late_failure_does_not_lengthen_an_ejection() -> None:
    """Requests that were under way when the host was ejected fail too: that says nothing new."""
    ejected = STATES["ejected by requests"]
    health = after(ejected, Event.ATTEMPT_FAILED, 100.5, POLICY)
    assert (health.until, health.since, health.ejections) == (ejected.until, ejected.since, ejected.ejections)


def test_ejected_once_is_counted_once() -> None:
    """Further bad polls of an ejected host are the same ejection."""
    health = STATES["ejected by polls"]
    for now in (101.0, 102.0):
        health = after(health, Event.UNREACHABLE, now, POLICY, "still gone")
    assert (health.ejections, health.since, health.why) == (1, 0.0, "still gone")


# -- whatever happens -------------------------------------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.sampled_from(Event), st.floats(0.0, 90.0)), max_size=40)
policies = st.builds(
    BreakerPolicy,
    failures=st.integers(1, 5),
    eject_seconds=st.floats(0.1, 10.0),
    eject_max_seconds=st.floats(10.0, 100.0),
)


def lived(happened: list[tuple[Event, float]], policy: BreakerPolicy) -> tuple[Health, float]:
    """A host's health after all this, and when that is."""
    health, now = Health(), 0.0
    for event, seconds in happened:
        now += seconds
        health = after(at(health, now), event, now, policy, "why")
    return health, now


@given(happened=steps, policy=policies)
@PROPERTY
def test_never_stuck(happened: list[tuple[Event, float]], policy: BreakerPolicy) -> None:
    """From anywhere, a good poll, patience and one good answer lead back."""
    health, now = lived(happened, policy)
    health = after(health, Event.POLL_OK, now, policy)
    health = at(health, now + policy.eject_max_seconds)
    assert health.state is not State.EJECTED
    assert after(health, Event.ATTEMPT_OK, now + policy.eject_max_seconds, policy).state is State.HEALTHY


@given(happened=steps, policy=policies, last=st.sampled_from([Event.POLL_FAILED, Event.UNREACHABLE]))
@PROPERTY
def test_ejected_by_polls_returns_by_a_poll(
    happened: list[tuple[Event, float]], policy: BreakerPolicy, last: Event
) -> None:
    """Nobody's request is tried on a host that polls have ejected; the first good poll brings it back."""
    health, now = lived([*happened, (last, 0.0)], policy)
    if health.state is State.EJECTED:
        assert at(health, now + 1e9).state is State.EJECTED
        assert after(health, Event.POLL_OK, now, policy).state is State.HEALTHY


@given(happened=steps, policy=policies)
@PROPERTY
def test_ejected_by_requests_gets_a_trial(happened: list[tuple[Event, float]], policy: BreakerPolicy) -> None:
    """No poll lets it in before; no ejection is longer than the longest."""
    before, now = lived(happened, policy)
    health = after(at(before, now), Event.ATTEMPT_FAILED, now, policy, "why")
    if health.state is State.EJECTED and before.state is not State.EJECTED:
        assert now < health.until <= now + policy.eject_max_seconds
        assert after(health, Event.POLL_OK, now, policy).state is State.EJECTED
        assert at(health, health.until).state is State.TRIAL


@given(happened=steps, policy=policies)
@PROPERTY
def test_one_failure_alone_proves_nothing(happened: list[tuple[Event, float]], policy: BreakerPolicy) -> None:
    """A host that can be reached is ejected only after so many failures of one kind in a row, or a failed trial."""
    polls = requests = 0
    health, now = Health(), 0.0
    for event, seconds in happened:
        now += seconds
        before = at(health, now)
        health = after(before, event, now, policy, "why")
        if event in (OK, DID):
            polls = 0
        if health.state is State.HEALTHY:
            requests = 0
        polls += event in (BAD, GONE)
        requests += event is FAILED
        if health.state is State.EJECTED and before.state in (State.HEALTHY, State.SUSPECT):
            assert event is Event.UNREACHABLE or max(polls, requests) >= policy.failures
