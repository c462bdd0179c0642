"""What a snapshot shows is what is, however often somebody looked before."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.health import BreakerPolicy, Event
from gateway.fleet.host import Lease
from gateway.fleet.registry import Fleet
from gateway.fleet.snapshot import HostView
from tests.builders import OTHER, TEXT
from tests.fleet.builders import WORKED_OUT, host, observation, told
from tests.profiles import PROPERTY

MEASURED_ONCE = {"regret", "regrets"}
"""As of when more changed than who runs there."""
NAMES = ("a", "b", "c")


class Course:
    """A fleet to which things happen, second by second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fleet = Fleet(map(host, NAMES), BreakerPolicy(failures=2, eject_seconds=3.0))
        self.leases: list[Lease] = []

    def happens(self, what: str, name: str, model: str) -> None:
        """One thing; nothing where it cannot."""
        self.now += 1.0
        fleet, now = self.fleet, self.now
        ways: dict[str, Callable[[], object]] = {
            "poll": lambda: fleet.observe(name, observation(now, holds=[model])),
            "empty": lambda: fleet.observe(name, observation(now, has=[model])),
            "lease": lambda: self._lease(name, model, cold=False),
            "cold": lambda: self._lease(name, model, cold=True),
            "gone": lambda: fleet.note(name, Event.UNREACHABLE, now),
            "failed": lambda: fleet.note(name, Event.ATTEMPT_FAILED, now, "500"),
            "ghost": lambda: fleet.forget_model(name, model),
            "unloaded": lambda: fleet.forget_loaded(name, model, now),
            "drain": lambda: fleet.drain(frozenset(name)),
            "elsewhere": lambda: fleet.leased_elsewhere({name: 2}),
            "fewer": lambda: fleet.configure([host(one, 3) for one in NAMES if one != name]),
            "all": lambda: fleet.configure(map(host, reversed(NAMES))),
        }
        if what in ways:
            if name in fleet.names or what in ("fewer", "all", "drain", "elsewhere"):
                ways[what]()
        elif self.leases:
            self._goes_on(what, model)

    def _lease(self, name: str, model: str, *, cold: bool) -> None:
        self.leases.append(self.fleet.lease(name, model, (), self.now, cold=cold, prefix=(1, 2), seconds=4.0))

    def _goes_on(self, what: str, model: str) -> None:
        if what == "answered":
            self.fleet.answered(self.leases[0], model, self.now)
        elif what == "learned":
            self.fleet.learn(self.leases[0], 2.0, told(1.0, 20.0, 500.0))
        else:
            self.fleet.release(self.leases.pop(0))

    def shown(self) -> list[dict[str, object]]:
        """All that the views say."""
        return [
            {
                name: getattr(view, name)
                for name in dir(view)
                if name[0] != "_" and name not in MEASURED_ONCE | WORKED_OUT
            }
            | {"state": view.state, "failures": view.failures}
            for view in self.fleet.snapshot(self.now).hosts
        ]


WHAT = [
    "poll",
    "empty",
    "lease",
    "cold",
    "gone",
    "failed",
    "ghost",
    "unloaded",
    "drain",
    "elsewhere",
    "fewer",
    "all",
    "answered",
    "learned",
    "released",
]
happenings = st.lists(
    st.tuples(st.sampled_from(WHAT), st.sampled_from(NAMES), st.sampled_from([TEXT, OTHER])), max_size=30
)


@given(course=happenings)
@PROPERTY
def test_what_is_shown_is_what_is(course: list[tuple[str, str, str]]) -> None:
    """Who looks after every step sees at the end what somebody sees who never looked."""
    watched, unwatched = Course(), Course()
    for step in course:
        watched.happens(*step)
        unwatched.happens(*step)
        watched.shown()
    assert watched.shown() == unwatched.shown()


def views(fleet: Fleet, now: float) -> dict[str, HostView]:
    """By name."""
    return {view.name: view for view in fleet.snapshot(now).hosts}


def test_only_what_changed_is_made_anew() -> None:
    """A thousand hosts are not looked at because of one; and what routing worked out of a host outlives a lease."""
    fleet = Fleet(map(host, NAMES))
    for name in NAMES:
        fleet.observe(name, observation(0.0, holds=[TEXT]))
    fleet.release(fleet.lease("a", TEXT, (), 0.0, cold=False))  # from now on it is known with which options it runs
    before = views(fleet, 0.0)
    before["a"].memo["worked"] = "out"
    lease = fleet.lease("a", TEXT, (), 1.0, cold=False)
    leased = views(fleet, 1.0)
    assert (leased["b"], leased["c"]) == (before["b"], before["c"])
    assert (leased["a"].leases, leased["a"].memo) == (1, {"worked": "out"})
    fleet.release(lease)
    assert views(fleet, 1.0)["a"].memo == {"worked": "out"}
    fleet.lease("a", OTHER, (), 1.0, cold=True)
    assert views(fleet, 1.0)["a"].memo == {}
