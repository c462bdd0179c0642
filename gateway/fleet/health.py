"""Health and circuit breaker of one host, as a table. Pure: events and ``now`` go in, a new Health comes out.

Two kinds of evidence are kept apart. *Active*: polls, and whether the address can be reached at all. *Passive*: how requests end.
A host ejected on active evidence comes back when a poll succeeds, never by trying somebody's request on it; one ejected for failing
requests (its polls may be fine) comes back through a trial: after a while one request may try it (the breaker is half open).

| state   | breaker   | POLL_OK            | POLL_FAILED      | UNREACHABLE | ATTEMPT_OK | ATTEMPT_FAILED   |
|---------|-----------|--------------------|------------------|-------------|------------|------------------|
| healthy | closed    | healthy            | suspect/ejected* | ejected     | healthy    | suspect/ejected* |
| suspect | closed    | healthy/suspect**  | suspect/ejected* | ejected     | healthy    | suspect/ejected* |
| ejected | open      | healthy/ejected*** | ejected          | ejected     | healthy    | ejected          |
| trial   | half-open | trial              | ejected          | ejected     | healthy    | ejected, longer  |

*   ejected after ``failures`` in a row.  **  requests still failing: stays suspect.  ***  healthy if the polls ejected it.
"""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """Whether routing may use a host."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    EJECTED = "ejected"
    TRIAL = "trial"


class Event(StrEnum):
    """One piece of evidence."""

    POLL_OK = "poll_ok"
    POLL_FAILED = "poll_failed"
    UNREACHABLE = "unreachable"
    ATTEMPT_OK = "attempt_ok"
    ATTEMPT_FAILED = "attempt_failed"


BREAKER = {State.HEALTHY: "closed", State.SUSPECT: "closed", State.EJECTED: "open", State.TRIAL: "half_open"}


class BreakerPolicy(msgspec.Struct, frozen=True, gc=False):
    """When a host is ejected and for how long, in seconds."""

    failures: int = 3
    eject_seconds: float = 1.0
    eject_max_seconds: float = 60.0


class Health(msgspec.Struct, frozen=True, gc=False):
    """The state in force, why, since when, and the counts behind it. ``until``: when a trial may begin (0: only a poll decides)."""

    state: State = State.SUSPECT
    why: str = "not polled yet"
    since: float = 0.0
    poll_failures: int = 0
    attempt_failures: int = 0
    ejections: int = 0
    until: float = 0.0
    failed_at: float = 0.0

    @property
    def breaker(self) -> str:
        """The circuit breaker's word for the state."""
        return BREAKER[self.state]


def after(health: Health, event: Event, now: float, policy: BreakerPolicy, why: str = "") -> Health:
    """The health that follows ``event``. The same object where nothing changes."""
    match event:
        case Event.ATTEMPT_OK:
            if health.state is State.HEALTHY and not health.attempt_failures and not health.poll_failures:
                return health
            return _healthy(health, now)
        case Event.POLL_OK:
            return _after_good_poll(health, now)
        case Event.UNREACHABLE:
            return _ejected(
                msgspec.structs.replace(health, poll_failures=health.poll_failures + 1), now, why, until=0.0
            )
        case Event.POLL_FAILED:
            failed = msgspec.structs.replace(health, poll_failures=health.poll_failures + 1, failed_at=now)
            if health.state in (State.EJECTED, State.TRIAL) or failed.poll_failures >= policy.failures:
                return _ejected(failed, now, why, until=0.0)
            return msgspec.structs.replace(failed, state=State.SUSPECT, why=why, since=now)
        case Event.ATTEMPT_FAILED:
            failed = msgspec.structs.replace(health, attempt_failures=health.attempt_failures + 1, failed_at=now)
            if health.state is State.TRIAL or (
                health.state is not State.EJECTED and failed.attempt_failures >= policy.failures
            ):
                wait = min(policy.eject_seconds * 2.0 ** min(health.ejections, 16), policy.eject_max_seconds)
                return _ejected(failed, now, why, until=now + wait)
            if health.state is State.EJECTED:
                return failed
            return msgspec.structs.replace(failed, state=State.SUSPECT, why=why, since=now)


def at(health: Health, now: float) -> Health:
    """The health at ``now``: an ejection for failing requests turns into a trial when its time is up."""
    if health.state is State.EJECTED and health.until and now >= health.until:
        return msgspec.structs.replace(health, state=State.TRIAL, since=health.until)
    return health


def _after_good_poll(health: Health, now: float) -> Health:
    match health.state:
        case State.HEALTHY:
            return health if not health.poll_failures else msgspec.structs.replace(health, poll_failures=0)
        case State.SUSPECT if health.attempt_failures:
            return msgspec.structs.replace(health, poll_failures=0)
        case State.SUSPECT:
            return _healthy(health, now)
        case State.EJECTED if not health.until:
            return _healthy(health, now)
        case _:
            return msgspec.structs.replace(health, poll_failures=0)


def _healthy(health: Health, now: float) -> Health:
    return Health(State.HEALTHY, "", now, failed_at=health.failed_at)


def _ejected(health: Health, now: float, why: str, until: float) -> Health:
    first = health.state is not State.EJECTED
    return msgspec.structs.replace(
        health,
        state=State.EJECTED,
        why=why,
        since=now if first else health.since,
        ejections=health.ejections + first,
        until=until,
        failed_at=now,
    )
