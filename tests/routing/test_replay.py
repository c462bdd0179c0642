"""The benchmark's virtual hosts and its bound: what they say must be right before it says anything about policies."""

import random

import pytest

from bench.routing.agenda import Agenda
from bench.routing.bound import bound
from bench.routing.figures import figures
from bench.routing.host import KEEP_ALIVE_SECONDS, Job, VirtualHost
from bench.routing.replay import Replay
from bench.routing.trace import Ask, Scenario, Talk, numbered, talks, zipf
from bench.routing.untold import Believing
from bench.routing.world import CATALOGUE, CONTEXT, LARGE, SMALL, Card, Model, Place
from gateway.routing.ranks import Policy

CARD = Card(vram=10e9, bandwidth=100e9, compute=1000.0, disk=1e9)
ONE, OTHER = Model("one", 5e9, 1.0), Model("other", 5e9, 1.0)
LOAD, READ, SAY = 6.5, 1.0, 0.05  # seconds: of a load, of 1000 tokens of prompt, of one token


def ask(model: Model = ONE, at: float = 0.0, conversation: int = 1, prompt: int = 1000, context: int = CONTEXT) -> Ask:
    """A request whose answer has 20 tokens."""
    return Ask(0, at, "me", model, context, conversation, prompt, 0, 20)


def served(slots: int, *asks: Ask) -> tuple[VirtualHost, list[tuple[float, float]]]:
    """A host that got these; when the first token of each came, and the last."""
    agenda = Agenda()
    host = VirtualHost(Place("gpu1", CARD, slots), agenda)
    firsts: dict[int, float] = {}
    lasts: dict[int, float] = {}
    for index, one in enumerate(asks):
        job = Job(
            one,
            lambda _, index=index: firsts.update({index: agenda.now}),
            lambda _, whole, index=index: lasts.update({index: agenda.now if whole else -1.0}),
        )
        agenda.at(one.at, lambda job=job: host.take(job))
    agenda.run()
    return host, [(firsts.get(index, -1.0), lasts[index]) for index in range(len(asks))]


def test_a_load_then_a_prompt_then_an_answer() -> None:
    """In that order, each at its pace; the second finds the model loaded, and its conversation read."""
    host, ends = served(1, ask(), ask(at=20.0, prompt=1520))
    assert ends[0] == pytest.approx((LOAD + READ, LOAD + READ + 20 * SAY))
    assert ends[1] == pytest.approx((20.5, 20.5 + 20 * SAY)), "of 1520 tokens 1020 were known"
    assert host.loads == 1


def test_one_at_a_time_and_two_at_a_time() -> None:
    """By the number of slots."""
    _, one = served(1, ask(), ask(conversation=2))
    _, two = served(2, ask(), ask(conversation=2))
    assert one[1][0] == pytest.approx(one[0][1] + READ)
    assert two[1] == two[0]


def test_what_does_not_fit_must_leave() -> None:
    """A model that another displaces is loaded again; so is one that is wanted with another context. Nobody is thrown out in the middle."""
    host, ends = served(2, ask(), ask(OTHER, at=1.0), ask(at=2.0), ask(at=50.0, context=2 * CONTEXT))
    assert ends[1][0] == pytest.approx(ends[0][1] + LOAD + READ), "it waits until the first is idle"
    assert (host.loads, host.reloads) == (4, 1)


def test_what_is_not_used_is_unloaded() -> None:
    """After keep_alive."""
    host, _ = served(1, ask(), ask(at=KEEP_ALIVE_SECONDS + 100.0))
    assert host.loads == 2


def test_a_host_that_dies() -> None:
    """Breaks off what it had begun, and what it had not."""
    agenda = Agenda()
    host = VirtualHost(Place("gpu1", CARD, 1), agenda)
    ends: list[bool] = []
    for _ in range(2):
        job = Job(ask(), lambda _: None, lambda _, whole: ends.append(whole))
        agenda.at(0.0, lambda job=job: host.take(job))
    agenda.at(LOAD + 0.5, host.die)
    agenda.run()
    assert ends == [False, False]
    assert host.lost_seconds == pytest.approx(0.5)


@pytest.fixture(scope="module")
def small() -> Scenario:
    """Two hosts, one of which dies, and ten minutes of talk."""
    rng = random.Random(11)
    places = (Place("big", LARGE, 2), Place("small", SMALL, 1, (200.0, 300.0)))
    models = CATALOGUE[:4]
    return Scenario(
        "small", "a test", places, numbered(talks(rng, Talk(every=12.0), 600.0, models, zipf(models, 1.0), 5))
    )


@pytest.fixture(scope="module")
def silent() -> Scenario:
    """Two hosts, and an hour in which models are asked for so seldom that they often leave memory before."""
    rng = random.Random(12)
    places = (Place("big", LARGE, 1), Place("small", SMALL, 1))
    models = CATALOGUE[:4]
    asks = talks(rng, Talk(every=120.0, turns=1.5), 3600.0, models, zipf(models, 1.0), 5)
    return Scenario("silent", "a test", places, numbered(asks))


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("name", ["small", "silent"])
def test_no_policy_beats_the_bound(name: str, policy: Policy, request: pytest.FixtureRequest) -> None:
    """Not for any single request, nor on average, nor at the end; and everything is answered, or failed as a host died."""
    trace: Scenario = request.getfixturevalue(name)
    least, run = bound(trace), Replay(trace, policy).run()
    assert [answer.ask.number for answer in run.answers] == list(range(len(trace.asks)))
    for answer, seconds in zip(run.answers, least.each, strict=True):
        assert answer.first is None or answer.first >= seconds - 1e-9
    found = figures(run)
    assert found.mean >= least.mean - 1e-9
    assert found.end >= least.end - 1e-9
    assert found.failed <= 3


def test_the_bound_where_it_can_be_reached() -> None:
    """One model that leaves memory each time: each request waits for its load, and one host can do no better."""
    asks = [ask(ONE._replace(name="one:1b"), at=400.0 * number, conversation=number) for number in range(10)]
    alone = Scenario("alone", "a test", (Place("gpu1", CARD, 1),), numbered(asks))
    assert bound(alone).mean == pytest.approx(LOAD + READ)
    assert figures(Replay(alone, Policy.PREDICTIVE).run()).mean == pytest.approx(LOAD + READ)


@pytest.mark.parametrize("told", [0, 1, 2, 4])
def test_slots_are_found_out(small: Scenario, told: int) -> None:
    """Whatever the gateway is told: it is not much worse for it than where it is told right, and better than who believes it."""
    places = tuple(place._replace(down=None) for place in small.places)
    right = figures(Replay(small._replace(places=places), Policy.PREDICTIVE).run())
    wrong = small._replace(places=tuple(place._replace(told=told) for place in places))
    held, found = (figures(kind(wrong, Policy.PREDICTIVE).run()) for kind in (Believing, Replay))
    assert found.mean <= 1.1 * held.mean
    if told != 1:  # which is the most, if it is said
        assert found.mean <= 1.5 * right.mean


def test_a_replay_is_repeatable(small: Scenario) -> None:
    """The same trace gives the same figures."""
    assert figures(Replay(small, Policy.PREDICTIVE).run()) == figures(Replay(small, Policy.PREDICTIVE).run())
