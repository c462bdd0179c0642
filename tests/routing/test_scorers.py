"""What a host would cost a request, in seconds: each part by itself, and their sum."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ReloadsConfig
from gateway.dialects.request import BLOCK_TOKENS, InferenceRequest, Kind
from gateway.fleet.ewma import Estimate
from gateway.fleet.health import Health, State
from gateway.fleet.host import Lease, RunnerOptions
from gateway.fleet.prompts import CONTINUES, Known
from gateway.fleet.registry import Fleet
from gateway.fleet.regret import DEFAULT_LOAD_BASE_SECONDS, DEFAULT_LOAD_RATE
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Costs
from gateway.routing.averages import (
    DEFAULT_DECODE_RATE,
    DEFAULT_OUTPUT_TOKENS,
    DEFAULT_PREFILL_RATE,
    DEFAULT_SERVICE_SECONDS,
    Averages,
)
from gateway.routing.scorers import (
    DECODE_SHARE,
    HARM_SHARE,
    MEMO_LIMIT,
    OVERDUE,
    PENALTY_HALF_LIFE_SECONDS,
    PENALTY_SECONDS,
    costs,
    fits,
    load_time,
    penalty,
    queue_wait,
)
from tests.builders import OTHER, TEXT
from tests.fleet.builders import (
    SIZE,
    available,
    changed,
    digest_of,
    host,
    loaded,
    observation,
    request,
    snapshot,
    told,
    view,
)
from tests.profiles import PROPERTY

DIGEST = digest_of(TEXT)
CONTEXT: RunnerOptions = (("num_ctx", 8192),)
LOADING = DEFAULT_LOAD_BASE_SECONDS + SIZE / DEFAULT_LOAD_RATE
"""Seconds to load the usual model where nothing is known."""


def learned(**estimate: float) -> dict[str, Any]:
    """A host that has learned this of the usual model."""
    return {"estimates": {DIGEST: Estimate(**estimate)}}


def averages(*hosts: HostView) -> Averages:
    """What these hosts have measured."""
    return Averages(snapshot(*hosts))


def priced(wanted: InferenceRequest, host: HostView, fleet: FleetSnapshot, ahead: int = 0) -> Costs:
    """The whole prediction."""
    return costs(wanted, host, Averages(fleet), ahead)


# -- waiting ------------------------------------------------------------------------------------------------------------------------

WAITS = {
    "idle": (view(service_seconds=4.0), 0, 0.0),
    "one of two slots taken": (view(slots=2, leases=1, service_seconds=4.0), 0, 0.0),
    "full": (view(leases=1, service_seconds=4.0), 0, 4.0),
    "full with two slots": (view(slots=2, leases=2, service_seconds=4.0), 0, 2.0),
    "taken by another gateway": (view(elsewhere=1, service_seconds=4.0), 0, 4.0),
    "full, and another gateway waits": (view(leases=1, elsewhere=1, service_seconds=4.0), 0, 8.0),
    "full with one ahead": (view(leases=1, service_seconds=4.0), 1, 8.0),
    "free with one ahead": (view(service_seconds=4.0), 1, 4.0),
    "one slot free with one ahead": (view(slots=2, leases=1, service_seconds=4.0), 1, 2.0),
    "full, never measured": (view(leases=1), 0, DEFAULT_SERVICE_SECONDS),
    "full, an end in sight": (view(leases=1, ends=(13.0,), service_seconds=4.0), 0, 3.0),
    "full, the nearer of two ends": (view(slots=2, leases=2, ends=(99.0, 12.0), service_seconds=4.0), 0, 2.0),
    "full, overdue": (view(leases=1, ends=(9.9,), service_seconds=4.0), 0, 4.0 * OVERDUE),
    "full, long overdue": (view(leases=1, ends=(2.0,), service_seconds=4.0), 0, 8.0),
    "full, an end in sight, two ahead": (view(leases=1, ends=(13.0,), service_seconds=4.0), 2, 11.0),
    "full, another gateway's end is not known": (
        view(leases=1, elsewhere=1, ends=(13.0,), service_seconds=4.0),
        0,
        8.0,
    ),
}


@pytest.mark.parametrize(("host", "ahead", "seconds"), WAITS.values(), ids=WAITS)
def test_queue_wait(host: HostView, ahead: int, seconds: float) -> None:
    """The end that is nearest, or leases and waiters beyond the slots, each for as long as a lease is held here."""
    assert queue_wait(host, averages(host), ahead, 10.0, host.slots) == pytest.approx(seconds)


CROWDED = {
    "an end in sight": (13.0, 0, 3.0),
    "two ahead": (13.0, 2, 3.0 + 2 * 4.0 / 4),
    "an end that is overdue": (4.0, 0, 6.0),
    "an end that nobody knows": (0.0, 0, 4.0),
}


@pytest.mark.parametrize(("until", "ahead", "seconds"), CROWDED.values(), ids=CROWDED)
def test_a_model_that_is_out_as_often_as_it_runs_at_once(until: float, ahead: int, seconds: float) -> None:
    """Waits for one of its own, though slots are free; another model does not."""
    full = {digest_of(TEXT): until}
    host = view(
        slots=4, leases=2, holds=(TEXT, OTHER), service_seconds=4.0, crowded=full, parallel=dict.fromkeys(full, 2)
    )
    seen = Averages(snapshot(host, at=10.0))
    waits = [costs(request(model), host, seen, ahead).queue_wait for model in (TEXT, OTHER)]
    assert waits == pytest.approx([seconds, 0.0])


def test_one_more_is_tried_of_one_model_alone() -> None:
    """The slots are taken, but for who has more than that by its own right."""
    host = view(slots=1, leases=1, ends=(13.0,), holds=(TEXT, OTHER), parallel={digest_of(TEXT): 2})
    assert [costs(request(model), host, averages(host), 0).queue_wait > 0 for model in (TEXT, OTHER)] == [False, True]
    assert [host.is_full(model) for model in (TEXT, OTHER)] == [False, True]


def test_an_unmeasured_host_waits_like_the_fleet() -> None:
    """Unknown is not free."""
    new, fleet = view("new", leases=1), (view("a", service_seconds=2.0), view("b", service_seconds=6.0))
    assert queue_wait(new, averages(new, *fleet), 0, 0.0, 1) == pytest.approx(4.0)


# -- loading ------------------------------------------------------------------------------------------------------------------------

LOADS = {
    "loaded with other options": (view(holds=[TEXT], runners={DIGEST: CONTEXT}), (), LOADING),
    "cold, unknown": (view(), (), LOADING),
    "cold, twice as large": (view(has=[available(TEXT, size=2 * SIZE)]), (), LOADING + SIZE / DEFAULT_LOAD_RATE),
    "cold, learned": (view(**learned(load_seconds=7.0)), (), 7.0),
    "loading since a second": (view(loading={DIGEST: 9.0}, runners={DIGEST: ()}, **learned(load_seconds=7.0)), (), 6.0),
    "loading for longer than it takes": (view(loading={DIGEST: 0.0}, runners={DIGEST: ()}), (), 0.0),
    "loading with other options": (
        view(loading={DIGEST: 9.0}, runners={DIGEST: CONTEXT}, **learned(load_seconds=7.0)),
        (),
        7.0,
    ),
    "loaded, but being loaded anew with these options": (
        view(holds=[TEXT], loading={DIGEST: 9.0}, runners={DIGEST: CONTEXT}, **learned(load_seconds=7.0)),
        CONTEXT,
        6.0,
    ),
    "cold, the host's pace is known": (view(load_rate=SIZE / 5.0), (), 5.0),
    "cold, the model itself was measured": (view(load_rate=SIZE / 5.0, **learned(load_seconds=7.0)), (), 7.0),
}


@pytest.mark.parametrize(("host", "options", "seconds"), LOADS.values(), ids=LOADS)
def test_load_time(host: HostView, options: RunnerOptions, seconds: float) -> None:
    """Nothing when a runner that fits is loaded, what is left of a load under way, else the learned or estimated load."""
    size = (host.available or {})[TEXT].size
    assert load_time(options, host, DIGEST, size, averages(host), 10.0) == pytest.approx(seconds)
    assert priced(request(runner_options=options), host, snapshot(host, at=10.0)).load_time == pytest.approx(seconds)


WARM = {
    "loaded": (view(holds=[TEXT]), (), True),
    "loaded by us with these options": (view(holds=[TEXT], runners={DIGEST: CONTEXT}), CONTEXT, True),
    "loaded with other options": (view(holds=[TEXT], runners={DIGEST: CONTEXT}), (), False),
    "being loaded": (view(holds=[TEXT], loading={DIGEST: 9.0}, runners={DIGEST: ()}), (), False),
    "not there": (view(), (), False),
    "has to make room": (view(holds=[TEXT], leaving=frozenset([DIGEST])), (), False),
}


@pytest.mark.parametrize(("host", "options", "expected"), WARM.values(), ids=WARM)
def test_warm(host: HostView, options: RunnerOptions, expected: bool) -> None:
    """Nothing has to be loaded; then a load costs nothing."""
    assert (priced(request(runner_options=options), host, snapshot(host)).load_time == 0.0) is expected


def test_a_load_that_is_left_to_ollama() -> None:
    """Is foretold and waited for, and makes no host dearer: requests go where the model is. Where it is not, it is a load like any other."""
    rules = (ReloadsConfig((TEXT,), "leave"),)
    other, fit, cold = view(holds=[TEXT], runners={DIGEST: CONTEXT}), view(holds=[TEXT]), view()
    reloaded, served, loads = (priced(request(), one, snapshot(one, reloads=rules)) for one in (other, fit, cold))
    assert (reloaded.load_time, served.load_time, loads.load_time) == (LOADING, 0.0, LOADING)
    assert reloaded.first_token == served.first_token + LOADING
    assert (reloaded.total, loads.total) == (served.total, served.total + LOADING)


def test_who_only_loads_gets_no_answer() -> None:
    """A request without a prompt costs what the load does."""
    cost = priced(request(kind=Kind.LOAD), view(), snapshot())
    assert (cost.load_time, cost.decode, cost.held) == (LOADING, 0.0, LOADING)


@pytest.mark.parametrize("hosts", [view(), view(has=None)], ids=["known", "unknown"])
@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/v1/embeddings"])
def test_who_embeds_gets_no_answer(path: str, hosts: HostView) -> None:
    """An embedding takes its reading: no words are written, and none are waited for by those behind it."""
    wanted = request(path=path, prompt_tokens=1000)
    cost = priced(wanted, hosts, snapshot(hosts))
    assert cost.decode == 0.0
    assert cost.held == cost.load_time + cost.prefill


def test_a_fleet_of_which_one_host_was_used() -> None:
    """A model that nobody has loaded loads everywhere at that host's pace, but for the usual base where nothing was ever measured: less than it costs to push out what is used."""
    used = view("a", load_rate=SIZE / 0.5, holds=[OTHER], vram_seen=SIZE)
    used = changed(used, vram_taken=SIZE, regrets={digest_of(OTHER): 6.0}, regret=6.0)
    new = view("b")
    first, second = (priced(request(), one, snapshot(used, new)) for one in (used, new))
    assert (first.load_time, second.load_time) == (pytest.approx(0.5), pytest.approx(2.5))
    assert first.total > second.total


def test_a_host_that_has_not_told_its_models() -> None:
    """Nothing is known of the model there: it is loaded from nothing, at no known size."""
    assert priced(request(), view(has=None), snapshot()).load_time == DEFAULT_LOAD_BASE_SECONDS


def test_an_unmeasured_load_takes_as_long_as_elsewhere() -> None:
    """What the fleet has learned of the model is the better guess."""
    new, other = view("new"), view("other", **learned(load_seconds=9.0))
    assert load_time((), new, DIGEST, SIZE, averages(new, other), 0.0) == pytest.approx(9.0)


FITS: dict[str, tuple[RunnerOptions, RunnerOptions | None, int, bool]] = {
    "the same": (CONTEXT, CONTEXT, 8192, True),
    "the same, cut to what the model can": (CONTEXT, CONTEXT, 4096, True),
    "none, none": ((), (), 4096, True),
    "none, not by us": ((), None, 4096, True),
    "a context that happens to be loaded": (CONTEXT, None, 8192, True),
    "a context, another is loaded": (CONTEXT, None, 4096, False),
    "a context that was loaded by itself": (CONTEXT, (), 8192, True),
    "none, after a context": ((), CONTEXT, 8192, False),
    "another context": ((("num_ctx", 2048),), CONTEXT, 8192, False),
    "an option, not by us": ((("num_gpu", 1),), None, 4096, False),
    "an option less": (CONTEXT, (*CONTEXT, ("num_batch", 1)), 8192, False),
    "an option more": ((*CONTEXT, ("num_gpu", 1)), CONTEXT, 8192, False),
    "another value": ((("shift", False),), (("shift", True),), 4096, False),
}


@pytest.mark.parametrize(("wanted", "sent", "context", "expected"), FITS.values(), ids=FITS)
def test_fits(wanted: RunnerOptions, sent: RunnerOptions | None, context: int, expected: bool) -> None:
    """Would Ollama serve this without a reload?"""
    assert fits(wanted, sent, loaded(TEXT, context=context)) is expected


# -- the prompt -----------------------------------------------------------------------------------------------------------------------


def test_prefill_rate() -> None:
    """The host's own, else the fleet's, else a stated default."""
    own, new = view("own", **learned(prefill_rate=100.0)), view("new")
    asked = request(prompt_tokens=1000)
    assert priced(asked, own, snapshot(own, new)).prefill == 10.0
    assert priced(asked, new, snapshot(own, new)).prefill == 10.0
    for unknown in (view("alone"), view("silent", has=None)):
        assert priced(asked, unknown, snapshot(unknown)).prefill == 1000 / DEFAULT_PREFILL_RATE


def known(*chains: tuple[int, ...]) -> dict[str, Any]:
    """A host whose slots know these prompts, and which reads 100 tokens per second."""
    slots = tuple(Known(chain, 0.0) for chain in chains)
    return {"holds": [TEXT], "prompts": {DIGEST: slots}, **learned(prefill_rate=100.0)}


HELD = {
    "all of it": (known((1, 2, 3)), -15.0),
    "all of it, and more": (known((1, 2, 3, 4)), -15.0),
    "its beginning": (known((1, 2)), -2 * BLOCK_TOKENS / 100.0),
    "its beginning, then other words": (known((1, 8, 3)), -BLOCK_TOKENS / 100.0),
    "in one of several slots": (known((9,), (1, 2), ()), -2 * BLOCK_TOKENS / 100.0),
    "another prompt": (known((8, 2, 3)), 0.0),
    "nothing": (known(), 0.0),
}


@pytest.mark.parametrize(("host", "seconds"), HELD.values(), ids=HELD)
def test_affinity(host: dict[str, Any], seconds: float) -> None:
    """What the prompt's cached beginning saves, at most the whole prompt."""
    one = view(slots=4, **host)
    asked = request(prefix=(1, 2, 3), prompt_tokens=1500)
    assert priced(asked, one, snapshot(one)).affinity == pytest.approx(seconds)


def test_another_conversation_is_in_the_way() -> None:
    """Who takes the only slot that knows somebody's prompt pays for what that one will have to have read again."""
    one, roomy = view(**known((8, 9))), view(slots=2, **known((8, 9)))
    found = priced(request(prefix=(1,), prompt_tokens=600), one, snapshot(one))
    assert found.harm == pytest.approx(HARM_SHARE * CONTINUES * 2 * BLOCK_TOKENS / 100.0)
    assert priced(request(prompt_tokens=60), one, snapshot(one)).harm == found.harm, "short prompts take a slot as well"
    assert priced(request(prefix=(8,), prompt_tokens=600), one, snapshot(one)).harm == 0.0
    assert priced(request(prefix=(1,), prompt_tokens=600), roomy, snapshot(roomy)).harm == 0.0


# -- the answer -----------------------------------------------------------------------------------------------------------------------


def test_decode() -> None:
    """An answer of usual length, at the host's pace, else the fleet's, else a stated default: all of it is held, a share is a cost."""
    own, new = view("own", holds=[TEXT], **learned(decode_rate=50.0)), view("new", holds=[TEXT])
    fleet = snapshot(own, new, lengths={DIGEST: 200.0})
    for one in (own, new):
        found = priced(request(), one, fleet)
        assert (found.held, found.decode) == (4.0, DECODE_SHARE * 4.0)
    alone = view("alone", holds=[TEXT])
    assert priced(request(), alone, snapshot(alone)).held == DEFAULT_OUTPUT_TOKENS / DEFAULT_DECODE_RATE


# -- failures -------------------------------------------------------------------------------------------------------------------------

FAULTS = {
    "none": (Health(State.HEALTHY, failed_at=10.0), 0.0),
    "one just now": (Health(State.SUSPECT, attempt_failures=1, failed_at=10.0), PENALTY_SECONDS),
    "of each kind": (Health(State.SUSPECT, attempt_failures=1, poll_failures=2, failed_at=10.0), 3 * PENALTY_SECONDS),
    "one a half-life ago": (
        Health(State.SUSPECT, attempt_failures=1, failed_at=10.0 - PENALTY_HALF_LIFE_SECONDS),
        PENALTY_SECONDS / 2,
    ),
    "one in the future": (Health(State.SUSPECT, attempt_failures=1, failed_at=99.0), PENALTY_SECONDS),
}


@pytest.mark.parametrize(("health", "seconds"), FAULTS.values(), ids=FAULTS)
def test_penalty(health: Health, seconds: float) -> None:
    """Recent failures cost, older ones less."""
    assert penalty(view(health=health), 10.0) == pytest.approx(seconds)


# -- the sum --------------------------------------------------------------------------------------------------------------------------


def test_an_idle_warm_host_costs_nothing() -> None:
    """Without a prompt, with the model loaded, there is nothing to wait for before the first token."""
    host = view(holds=[TEXT])
    answer = DEFAULT_OUTPUT_TOKENS / DEFAULT_DECODE_RATE
    found = priced(request(), host, snapshot(host))
    slow = DECODE_SHARE * answer
    assert found == Costs("gpu1", slow, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, slow, answer)
    assert found.first_token == 0.0


def test_everything_at_once() -> None:
    """All parts, and their sum."""
    suspect = Health(State.SUSPECT, attempt_failures=1, failed_at=10.0)
    host = view(
        leases=1,
        holds=[OTHER],
        health=suspect,
        service_seconds=4.0,
        estimates={
            DIGEST: Estimate(load_seconds=7.0, prefill_rate=100.0, decode_rate=50.0),
        },
        regrets={digest_of(OTHER): 3.0},
        regret=3.0,
    )
    fleet = snapshot(host, at=10.0, lengths={DIGEST: 100.0})
    found = priced(request(prompt_tokens=500, prefix=(7,)), host, fleet, 1)
    parts = (8.0, 7.0, 5.0, 0.0, PENALTY_SECONDS, HARM_SHARE * 3.0, DECODE_SHARE * 2.0)
    assert found == Costs("gpu1", pytest.approx(sum(parts)), *parts, 14.0)
    assert found.first_token == 20.0


def test_a_cache_is_worth_nothing_where_the_model_must_be_loaded() -> None:
    """A load begins with an empty cache."""
    cold, warm = view(prompts={DIGEST: (Known((7,), 0.0),)}), view(holds=[TEXT], prompts={DIGEST: (Known((7,), 0.0),)})
    asked = request(prompt_tokens=500, prefix=(7,))
    assert priced(asked, cold, snapshot(cold)).affinity == 0.0
    assert priced(asked, warm, snapshot(warm)).first_token == pytest.approx(0.0)


def test_what_was_worked_out_is_remembered() -> None:
    """For each model and runner options, as long as the host stays as it is; but for a load under way, which gets shorter."""
    fleet = Fleet([host()])
    fleet.observe("gpu1", observation(0.0, holds=[TEXT]))
    blank = fleet.snapshot(0.0)
    priced(request(OTHER), blank.hosts[0], blank)
    assert blank.hosts[0].memo == {}, "what a load takes is known from others at best, who may learn"
    fleet.learn(Lease(0, "gpu1", DIGEST, cold=True, since=0.0), 9.0, told(3.0))
    before = fleet.snapshot(0.0)
    priced(request(), before.hosts[0], before)
    assert before.hosts[0].memo.keys() == {(TEXT, ())}
    for number in range(2 * MEMO_LIMIT):
        priced(request(runner_options=(("num_ctx", number),)), before.hosts[0], before)
    assert len(before.hosts[0].memo) == MEMO_LIMIT
    fleet.lease("gpu1", OTHER, (), 1.0, cold=True)
    after = [fleet.snapshot(now) for now in (1.0, 2.0)]
    loads = [priced(request(OTHER), one.hosts[0], one).load_time for one in after]
    assert loads == [3.0, 2.0]
    assert after[0].hosts[0].memo == {}


seconds = st.floats(0.01, 1000.0)


@given(
    leases=st.integers(0, 6),
    slots=st.integers(1, 4),
    ahead=st.integers(0, 6),
    service=st.none() | seconds,
    rate=st.none() | seconds,
    load=st.none() | seconds,
    warm=st.booleans(),
    tokens=st.integers(0, 30_000),
    cached=st.integers(0, 80),
    failures=st.integers(0, 5),
    age=st.floats(0.0, 1e4),
)
@PROPERTY
def test_costs_are_sane(
    leases: int,
    slots: int,
    ahead: int,
    service: float | None,
    rate: float | None,
    load: float | None,
    warm: bool,
    tokens: int,
    cached: int,
    failures: int,
    age: float,
) -> None:
    """No part is negative but affinity, which never saves more than the prefill; the sum is the sum; one more ahead never costs less."""
    host = view(
        slots=slots,
        leases=leases,
        holds=[TEXT] if warm else [],
        service_seconds=service,
        estimates={DIGEST: Estimate(load, rate, None)},
        health=Health(State.SUSPECT, attempt_failures=failures, failed_at=0.0),
        prompts={DIGEST: (Known(tuple(range(cached)), 0.0),)},
    )
    fleet = snapshot(host, at=age)
    asked = request(prompt_tokens=tokens, prefix=tuple(range(64)))
    found = priced(asked, host, fleet, ahead)
    parts = (found.queue_wait, found.load_time, found.prefill, found.penalty, found.harm, found.decode)
    assert all(part >= 0.0 for part in parts)
    assert -found.prefill <= found.affinity <= 0.0
    assert found.total == pytest.approx(sum(parts) + found.affinity)
    assert (found.load_time == 0.0) is warm
    assert (found.queue_wait == 0.0) is (leases < slots and (warm or leases + ahead < slots))
    assert priced(asked, host, fleet, ahead + 1).total >= found.total
