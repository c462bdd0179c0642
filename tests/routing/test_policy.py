"""choose: of the hosts that may, the cheapest; why it was that one, and why not the others."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.ewma import Estimate
from gateway.fleet.health import Health, State
from gateway.fleet.prompts import Known
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Rejected, Route, RouteReason
from gateway.routing.filters import Rejection, reject
from gateway.routing.policy import HOSTS_TOLD, Unroutable, choose
from gateway.routing.ranks import Policy
from tests.builders import OTHER, TEXT
from tests.fleet.builders import HEALTHY, digest_of, request, snapshot, view
from tests.profiles import PROPERTY

DIGEST = digest_of(TEXT)
EJECTED, TRIAL = Health(State.EJECTED, "cannot connect"), Health(State.TRIAL, "500")


class Pick:
    """Chance that always picks one number, and was asked how often."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.stops: list[int] = []

    def randrange(self, stop: int, /) -> int:
        """The number."""
        self.stops.append(stop)
        return min(self.number, stop - 1)


def chosen(
    *views: HostView, rng: Any = None, tried: str = "", ahead: dict[str, int] | None = None, **asked: Any
) -> Route:
    """The route of a request over these hosts."""
    policy = asked.pop("policy", Policy.PREDICTIVE)
    route = choose(request(**asked), snapshot(*views), rng or Pick(), frozenset(tried.split()), ahead or {}, policy)
    assert isinstance(route, Route)
    return route


# -- which one ------------------------------------------------------------------------------------------------------------------------

REASONS: dict[str, tuple[list[HostView], dict[str, Any], str, RouteReason]] = {
    "the only one": ([view("a")], {}, "a", RouteReason.ONLY_CANDIDATE),
    "the only one that may": ([view("a", health=EJECTED), view("b")], {}, "b", RouteReason.ONLY_CANDIDATE),
    "it is loaded": ([view("a"), view("b", holds=[TEXT])], {}, "b", RouteReason.LOADED),
    "it is less busy": (
        [view("a", holds=[TEXT], leases=1), view("b", holds=[TEXT])],
        {},
        "b",
        RouteReason.LEAST_BUSY,
    ),
    "it has a slot more": (
        [view("a", holds=[TEXT], slots=2, leases=1), view("b", holds=[TEXT], slots=2)],
        {},
        "b",
        RouteReason.LEAST_BUSY,
    ),
    "all are cold": ([view("a", estimates={DIGEST: Estimate(1.0)}), view("b")], {}, "a", RouteReason.COLD_LOAD),
    "the prompt is cached there": (
        [view("a", holds=[TEXT]), view("b", holds=[TEXT], prompts={DIGEST: (Known((7,), 0.0),)})],
        {"prefix": (7,), "prompt_tokens": 5000},
        "b",
        RouteReason.AFFINITY,
    ),
    "waiting for a warm one is cheaper": (
        [view("a", holds=[TEXT], leases=1, service_seconds=1.0), view("b", estimates={DIGEST: Estimate(9.0)})],
        {},
        "a",
        RouteReason.LOADED,
    ),
    "loading is cheaper than waiting": (
        [view("a", holds=[TEXT], leases=1, service_seconds=9.0), view("b", estimates={DIGEST: Estimate(1.0)})],
        {},
        "b",
        RouteReason.COLD_LOAD,
    ),
    "the other has failed": (
        [view("a", holds=[TEXT], health=Health(State.SUSPECT, "", attempt_failures=1)), view("b", holds=[TEXT])],
        {},
        "b",
        RouteReason.LEAST_BUSY,
    ),
    "counting those ahead": (
        [view("a", holds=[TEXT], leases=1, service_seconds=2.0), view("b", estimates={DIGEST: Estimate(3.0)})],
        {"ahead": {"a": 1}},
        "b",
        RouteReason.COLD_LOAD,
    ),
    "the first was tried": ([view("a", holds=[TEXT]), view("b")], {"tried": "a"}, "b", RouteReason.ONLY_CANDIDATE),
}


@pytest.mark.parametrize(("views", "asked", "host", "reason"), REASONS.values(), ids=REASONS)
def test_the_cheapest(views: list[HostView], asked: dict[str, Any], host: str, reason: RouteReason) -> None:
    """The cheapest host takes the request, and the route says why it was."""
    route = chosen(*views, **asked)
    assert (route.host, route.reason) == (host, reason)
    assert route.costs[0].host == host
    assert [costs.total for costs in route.costs] == sorted(costs.total for costs in route.costs)


def test_a_route_explains_itself() -> None:
    """Every host is in it, with its costs or with the reason why it was left out."""
    route = chosen(view("a"), view("b", holds=[TEXT]), view("c", has=[OTHER]), view("d", health=EJECTED), tried="")
    assert (route.host, route.runner_up, route.predicted_seconds) == ("b", "a", 0.0)
    assert [costs.host for costs in route.costs] == ["b", "a"]
    assert route.rejected == (
        Rejected("c", Rejection.MODEL_MISSING, "does not have the model"),
        Rejected("d", Rejection.EJECTED, "is ejected: cannot connect"),
    )


def test_one_candidate_has_no_runner_up() -> None:
    """Nor is chance asked."""
    rng = Pick()
    assert chosen(view("a"), rng=rng).runner_up is None
    assert rng.stops == []


class Counted(dict[str, Estimate]):
    """Estimates that count how often they are looked at."""

    looks = 0

    def get(self, *key: Any) -> Any:
        """What is there."""
        self.looks += 1
        return super().get(*key)

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)


def test_the_fleets_averages_are_worked_out_once() -> None:
    """Not once for each host that needs them: a decision would cost the square of the fleet."""
    hosts = [view(f"gpu{number}", leases=1, estimates=Counted()) for number in range(20)]
    route = chosen(*hosts, prompt_tokens=500, prefix=(7,))
    assert len(route.costs) == 20
    assert {host.estimates.looks for host in hosts} == {4}  # its own, twice more for a load, and one for the averages


# -- ties -----------------------------------------------------------------------------------------------------------------------------


def test_equal_costs_go_to_fewer_leases() -> None:
    """Both have slots free, one has more."""
    assert chosen(view("a", slots=4, leases=1, holds=[TEXT]), view("b", slots=4, holds=[TEXT])).host == "b"


def test_then_to_the_host_that_was_used_longest_ago() -> None:
    """Its caches are the least missed, and every idle host gets its turn."""
    assert chosen(view("a", leased_at=5.0), view("b", leased_at=4.0), view("c", leased_at=6.0)).host == "b"
    assert chosen(view("a", leased_at=5.0), view("b")).host == "b"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_then_to_chance(number: int) -> None:
    """Among exact ties only."""
    rng = Pick(number)
    hosts = [view(name) for name in "abc"] + [view("d", leases=1)]
    assert chosen(*hosts, rng=rng).host == "abc"[number]
    assert rng.stops == [3]


def test_chance_is_fair() -> None:
    """Over many requests, equal hosts get equal shares."""
    rng, hosts = random.Random(1), [view(name) for name in "abc"]
    shares = [chosen(*hosts, rng=rng).host for _ in range(600)]
    assert all(150 < shares.count(name) < 250 for name in "abc")


# -- other policies -------------------------------------------------------------------------------------------------------------------

POLICIES: dict[str, tuple[Policy, list[HostView], dict[str, Any], str]] = {
    "fewest leases, though cold": (
        Policy.LEAST_CONNECTIONS,
        [view("a", slots=2, leases=1, holds=[TEXT]), view("b", slots=2)],
        {},
        "b",
    ),
    "fewest for each slot": (Policy.LEAST_CONNECTIONS, [view("a", slots=4, leases=1), view("b", leases=1)], {}, "a"),
    "those who wait count": (
        Policy.LEAST_CONNECTIONS,
        [view("a", leases=1), view("b", leases=1)],
        {"ahead": {"a": 1}},
        "b",
    ),
    "the one used longest ago": (
        Policy.ROUND_ROBIN,
        [view("a", leased_at=5.0, holds=[TEXT]), view("b", leased_at=4.0)],
        {},
        "b",
    ),
    "the one used longest ago that is free": (
        Policy.ROUND_ROBIN,
        [view("a", leased_at=1.0, leases=1), view("b", leased_at=4.0)],
        {},
        "b",
    ),
    "any": (Policy.RANDOM, [view("a"), view("b"), view("c")], {"rng": Pick(2)}, "c"),
    "any that is free": (Policy.RANDOM, [view("a", leases=1), view("b")], {}, "b"),
    "warm, though slow": (
        Policy.WARM_FIRST,
        [view("a", estimates={DIGEST: Estimate(0.1)}), view("b", holds=[TEXT], leased_at=9.0)],
        {},
        "b",
    ),
    "cold rather than wait": (Policy.WARM_FIRST, [view("a"), view("b", holds=[TEXT], leases=1)], {}, "a"),
}


@pytest.mark.parametrize(("policy", "views", "asked", "host"), POLICIES.values(), ids=POLICIES)
def test_other_policies(policy: Policy, views: list[HostView], asked: dict[str, Any], host: str) -> None:
    """They rank by less, and show the same costs."""
    route = chosen(*views, policy=policy, **asked)
    assert route.host == route.costs[0].host == host
    assert {costs.host for costs in route.costs} == {one.host.name for one in views}


# -- when no host may -----------------------------------------------------------------------------------------------------------------

PANIC: dict[str, tuple[list[HostView], str]] = {
    "the only one is ejected": ([view("a", health=EJECTED)], "a"),
    "all are ejected": ([view("a", health=EJECTED), view("b", health=EJECTED, holds=[TEXT])], "b"),
    "one is ejected, one lacks the model": ([view("a", has=[OTHER]), view("b", health=EJECTED)], "b"),
    "one is ejected, one has not told its models": ([view("a", has=None), view("b", health=EJECTED)], "b"),
    "one has not told its models, one lacks it": ([view("a", has=None), view("b", has=[])], "a"),
    "one has not told its models, one has never answered": (
        [view("a", has=None, seen_at=None), view("b", has=None)],
        "b",
    ),
    "one is on trial with another": ([view("a", health=TRIAL, leases=1)], "a"),
}


@pytest.mark.parametrize(("views", "host"), PANIC.values(), ids=PANIC)
def test_panic(views: list[HostView], host: str) -> None:
    """When no host may take a request, the best of those that could is used all the same, and the route says so."""
    route = chosen(*views)
    assert (route.host, route.reason) == (host, RouteReason.FALLBACK)
    assert {costs.host for costs in route.costs} & {left_out.host for left_out in route.rejected} == set()


UNROUTABLE: dict[str, tuple[list[HostView], str, bool]] = {
    "nobody has the model": ([view("a", has=[OTHER]), view("b", has=[])], "", True),
    "who has it was tried": ([view("a", has=[OTHER]), view("b")], "b", False),
    "all were tried": ([view("a"), view("b")], "a b", False),
    "the only one was tried": ([view("a", health=EJECTED)], "a", False),
}


@pytest.mark.parametrize(("views", "tried", "unknown"), UNROUTABLE.values(), ids=UNROUTABLE)
def test_unroutable(views: list[HostView], tried: str, unknown: bool) -> None:
    """Not even in panic is a host used that failed, or that lacks the model; each is named with its reason."""
    verdict = choose(request(), snapshot(*views), Pick(), frozenset(tried.split()))
    assert isinstance(verdict, Unroutable)
    assert verdict.unknown_model is unknown
    assert [left_out.host for left_out in verdict.rejected] == [host.name for host in views]
    assert {left_out.code for left_out in verdict.rejected} <= {Rejection.TRIED, Rejection.MODEL_MISSING}


# -- whatever the fleet ---------------------------------------------------------------------------------------------------------------

# Halves and quarters, so that no sum depends on its order.
seconds = st.integers(1, 400).map(lambda number: number / 4)
models = st.lists(st.sampled_from([TEXT, OTHER]), unique=True)


@st.composite
def fleets(draw: st.DrawFn) -> FleetSnapshot:
    """Up to six hosts, each in any condition."""
    hosts = []
    for index in range(draw(st.integers(1, 6))):
        state = draw(st.sampled_from([State.HEALTHY] * 4 + list(State)))
        health = msgspec.structs.replace(HEALTHY, state=state, attempt_failures=draw(st.integers(0, 2)))
        hosts.append(
            view(
                f"gpu{index}",
                slots=draw(st.integers(1, 3)),
                leases=draw(st.integers(0, 3)),
                leased_at=draw(st.sampled_from([float("-inf"), 1.0, 2.0])),
                has=draw(st.none() | models),
                holds=draw(models),
                health=health,
                prompts={DIGEST: draw(st.sampled_from([(), (Known((7,), 0.0),)]))},
                regret=draw(seconds),
                service_seconds=draw(st.none() | seconds),
                estimates={DIGEST: Estimate(draw(st.none() | seconds), draw(st.none() | seconds), None)},
            )
        )
    return snapshot(*hosts)


asked = st.builds(
    lambda tokens, prefix, options: request(prompt_tokens=tokens, prefix=prefix, runner_options=options),
    st.sampled_from([0, 64, 1024]),
    st.sampled_from([(), (7,)]),
    st.sampled_from([(), (("num_ctx", 8192),)]),
)
tried = st.frozensets(st.sampled_from([f"gpu{index}" for index in range(6)]), max_size=3)
ahead = st.dictionaries(st.sampled_from([f"gpu{index}" for index in range(6)]), st.integers(0, 4), max_size=3)
seeds = st.integers(0, 9)


@given(fleet=fleets(), wanted=asked, out=tried, before=ahead, seed=seeds)
@PROPERTY
def test_never_an_ineligible_host(
    fleet: FleetSnapshot, wanted: Any, out: frozenset[str], before: dict[str, int], seed: int
) -> None:
    """A host that may not take the request is chosen in panic only, and then never one that was tried or lacks the model."""
    verdict = choose(wanted, fleet, random.Random(seed), out, before)
    reasons = {host.name: reject(wanted, host, out) for host in fleet.hosts}
    may = {name for name, reason in reasons.items() if reason is None}
    silent = {host.name for host in fleet.hosts if host.seen_at is None or host.health.state is State.EJECTED}
    lasting = {
        name
        for name, reason in reasons.items()
        if reason in (Rejection.TRIED, Rejection.MODEL_MISSING) or (reason is Rejection.UNKNOWN and name in silent)
    }
    if isinstance(verdict, Unroutable):
        assert lasting == set(reasons)
        assert verdict.unknown_model is (set(reasons.values()) - {Rejection.UNKNOWN} == {Rejection.MODEL_MISSING})
    elif may:
        assert {costs.host for costs in verdict.costs} == may
        assert verdict.reason is not RouteReason.FALLBACK
    else:
        assert verdict.reason is RouteReason.FALLBACK
        assert {costs.host for costs in verdict.costs} & lasting == set()
    named = [left_out.host for left_out in verdict.rejected]
    priced = [costs.host for costs in verdict.costs] if isinstance(verdict, Route) else []
    assert sorted([*named, *priced]) == sorted(reasons)


@given(fleet=fleets(), wanted=asked, out=tried, before=ahead, seed=seeds)
@PROPERTY
def test_never_dearer_than_the_runner_up(
    fleet: FleetSnapshot, wanted: Any, out: frozenset[str], before: dict[str, int], seed: int
) -> None:
    """The chosen host is the first of a ranking by cost."""
    verdict = choose(wanted, fleet, random.Random(seed), out, before)
    if isinstance(verdict, Route):
        totals = [costs.total for costs in verdict.costs]
        assert totals == sorted(totals)
        assert (verdict.host, verdict.predicted_seconds) == (verdict.costs[0].host, verdict.costs[0].first_token)


def test_of_many_hosts_the_best_are_told() -> None:
    """Whoever is the cheapest of a thousand is found, wherever it stands, and the first of those that are told."""
    rates = random.Random(7).sample(range(1000, 9000), 1000)
    hosts = [
        view(f"gpu{place}", holds=[TEXT], estimates={DIGEST: Estimate(None, float(rate), None)})
        for place, rate in enumerate(rates)
    ]
    route = chosen(*hosts, *(view(f"full{place}", has=[OTHER]) for place in range(100)), prompt_tokens=1000)
    best = sorted(range(1000), key=rates.__getitem__, reverse=True)[:HOSTS_TOLD]
    assert [costs.host for costs in route.costs] == [f"gpu{place}" for place in best]
    assert len(route.rejected) == HOSTS_TOLD


@given(data=st.data(), fleet=fleets(), wanted=asked, out=tried, before=ahead, seed=seeds)
@PROPERTY
def test_the_order_of_hosts_does_not_matter(
    data: st.DataObject, fleet: FleetSnapshot, wanted: Any, out: frozenset[str], before: dict[str, int], seed: int
) -> None:
    """The same hosts in any order and the same seed give the same answer, with the same reasons."""
    other = FleetSnapshot(fleet.taken_at, tuple(data.draw(st.permutations(fleet.hosts))), fleet.lengths, fleet.sizes)
    one, two = (choose(wanted, hosts, random.Random(seed), out, before) for hosts in (fleet, other))
    assert sorted(one.rejected, key=lambda left_out: left_out.host) == sorted(
        two.rejected, key=lambda left_out: left_out.host
    )
    if isinstance(one, Unroutable):
        assert isinstance(two, Unroutable)
        assert one.unknown_model == two.unknown_model
    else:
        assert isinstance(two, Route)
        assert msgspec.structs.replace(one, rejected=()) == msgspec.structs.replace(two, rejected=())
