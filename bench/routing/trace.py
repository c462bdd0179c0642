"""What is asked, when, by whom: one trace a scenario, the same for every policy. Made of chance with a seed."""

import random
from collections.abc import Callable, Sequence
from math import exp, log
from typing import NamedTuple

from bench.routing.world import CATALOGUE, CONTEXT, HUGE, LARGE, MEDIUM, SMALL, Model, Place

BLOCK_TOKENS = 512


class Ask(NamedTuple):
    """One request. ``prompt_tokens`` hold the whole conversation so far; ``known_tokens`` of them came up in it before."""

    number: int
    at: float
    principal: str
    model: Model
    context: int
    conversation: int
    prompt_tokens: int
    known_tokens: int
    output_tokens: int

    @property
    def chain(self) -> tuple[int, ...]:
        """As dialects/read.py chains blocks."""
        return tuple([hash((self.conversation, block)) for block in range(self.prompt_tokens // BLOCK_TOKENS)])


class Scenario(NamedTuple):
    """A fleet and what it is asked. ``warm``: each host holds some models from the beginning, else none."""

    name: str
    what: str
    places: tuple[Place, ...]
    asks: tuple[Ask, ...]
    warm: bool = False

    def held(self, number: int) -> list[Model]:
        """What the host with this number holds from the beginning, as far as it fits."""
        models = sorted({ask.model for ask in self.asks}) if self.warm else []
        return models[number % len(models) :] + models[: number % len(models)] if models else []


class Talk(NamedTuple):
    """How people talk: seconds between conversations (all together), and the medians of what a turn holds."""

    every: float
    turns: float = 4.0
    think: float = 25.0
    question: float = 120.0
    answer: float = 220.0
    document: float = 0.25  # of conversations that begin with a long text
    wide: float = 0.15  # of principals whose program asks for twice the context


def zipf(models: Sequence[Model], s: float) -> list[float]:
    """Weights by rank."""
    return [1.0 / (rank + 1) ** s for rank in range(len(models))]


def talks(
    rng: random.Random,
    talk: Talk,
    seconds: float,
    models: Sequence[Model],
    weights: Sequence[float],
    users: int,
    pace: Callable[[float], float] = lambda _: 1.0,
) -> list[Ask]:
    """Conversations of ``users`` over ``seconds``; ``pace`` makes some times busier than others. Numbers are given later."""
    asks: list[Ask] = []
    at = 0.0
    conversation = 0
    habits = {user: CONTEXT * 2 if rng.random() < talk.wide else CONTEXT for user in range(users)}
    while True:
        at += rng.expovariate(pace(at) / talk.every)
        if at >= seconds:
            return asks
        conversation += 1
        user = rng.randrange(users)
        model = rng.choices(models, weights)[0]
        tokens = known = 0
        when = at
        if rng.random() < talk.document:
            tokens = int(min(_lognormal(rng, 1500, 0.6), CONTEXT * 0.7))
        while True:
            tokens += int(_lognormal(rng, talk.question, 0.8)) + 20
            output = max(8, int(_lognormal(rng, talk.answer, 0.8)))
            if tokens + output > habits[user] or when >= seconds:
                break
            asks.append(Ask(0, when, f"user{user}", model, habits[user], conversation, tokens, known, output))
            known = tokens = tokens + output
            if rng.random() < 1.0 / talk.turns:
                break
            when += 2.0 + output / 40 + _lognormal(rng, talk.think, 0.7)


def _lognormal(rng: random.Random, median: float, sigma: float) -> float:
    return exp(rng.gauss(log(median), sigma))


def numbered(asks: Sequence[Ask]) -> tuple[Ask, ...]:
    """In the order of arrival."""
    ordered = sorted(asks, key=lambda ask: (ask.at, ask.conversation))
    return tuple([ask._replace(number=number) for number, ask in enumerate(ordered)])


def homelab() -> Scenario:
    """Two hosts of one household."""
    rng = random.Random(1)
    places = (Place("big", LARGE, 1), Place("small", SMALL, 1))
    models = CATALOGUE[:5]
    asks = talks(rng, Talk(every=55.0), 7200.0, models, zipf(models, 1.0), 6)
    return Scenario("homelab", "2 unequal hosts, 5 models, 6 people, two hours", places, numbered(asks))


def lab() -> Scenario:
    """A laboratory: bursts, and a host that dies."""
    rng = random.Random(2)
    cards = (LARGE, LARGE, MEDIUM, MEDIUM, MEDIUM, SMALL, SMALL, HUGE)
    places = tuple(
        Place(f"gpu{number}", card, 2, (1100.0, 1700.0) if number == 1 else None) for number, card in enumerate(cards)
    )
    asks = talks(
        rng,
        Talk(every=4.5),
        3600.0,
        CATALOGUE,
        zipf(CATALOGUE, 1.0),
        40,
        lambda at: 2.2 if at % 600 < 150 else 0.6,
    )
    what = "8 hosts of 4 kinds with 2 slots, 12 models, 40 people in bursts; a host dies and returns; an hour"
    return Scenario("lab", what, places, numbered(asks))


def company() -> Scenario:
    """A company: many of everything."""
    rng = random.Random(3)
    cards = (LARGE, MEDIUM, SMALL, LARGE, HUGE)
    places = tuple(
        Place(f"gpu{number:02}", cards[number % 5], 2, (400.0, 600.0) if number in (3, 17) else None)
        for number in range(50)
    )
    models = [
        base._replace(name=f"{base.name}-{variant}") for variant in ("a", "b", "c", "d") for base in CATALOGUE[:10]
    ]
    asks = talks(rng, Talk(every=0.52), 1000.0, models, zipf(models, 0.9), 500)
    what = "50 hosts of 4 kinds with 2 slots, 40 models, 500 people; two hosts die and return; 17 minutes"
    return Scenario("company", what, places, numbered(asks))


def storm() -> Scenario:
    """Everybody wants the same model at once."""
    rng = random.Random(4)
    cards = (LARGE, MEDIUM, LARGE, SMALL, MEDIUM, LARGE)
    places = tuple(Place(f"gpu{number}", card, 2) for number, card in enumerate(cards))
    calm = talks(rng, Talk(every=9.0), 1800.0, CATALOGUE[:8], zipf(CATALOGUE[:8], 0.8), 30)
    hot = talks(rng, Talk(every=1.6, turns=2.5), 400.0, CATALOGUE[7:8], [1.0], 60)
    shifted = [ask._replace(at=ask.at + 600.0, conversation=ask.conversation + 10**6) for ask in hot]
    what = "6 hosts with 2 slots, 8 models; after ten minutes everybody asks one of them, which few had used"
    return Scenario("storm", what, places, numbered([*calm, *shifted]))


def hostile() -> Scenario:
    """One key asks for more than there is."""
    rng = random.Random(5)
    places = tuple(Place(f"gpu{number}", card, 2) for number, card in enumerate((LARGE, MEDIUM, LARGE, MEDIUM)))
    people = talks(rng, Talk(every=11.0), 1200.0, CATALOGUE[:6], zipf(CATALOGUE[:6], 1.0), 20)
    greedy = [
        Ask(
            0,
            200.0 + number * 0.35,
            "greedy",
            rng.choice(CATALOGUE[:6]),
            CONTEXT,
            10**6 + number,
            int(_lognormal(rng, 600, 0.5)),
            0,
            int(_lognormal(rng, 350, 0.5)),
        )
        for number in range(900)
    ]
    what = "4 hosts with 2 slots, 6 models, 20 people, and one program that sends 3 requests a second for five minutes"
    return Scenario("hostile", what, places, numbered([*people, *greedy]))


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "homelab": homelab,
    "lab": lab,
    "company": company,
    "storm": storm,
    "hostile": hostile,
}


def minute() -> Scenario:
    """One minute, for a replay that takes as long as it says (sockets.py). Hosts begin warm: else who loads what first would be chance, and decide the rest."""
    rng = random.Random(6)
    cards = (LARGE, LARGE, MEDIUM, MEDIUM, MEDIUM, SMALL, SMALL, HUGE)
    places = tuple(Place(f"gpu{number}", card, 2) for number, card in enumerate(cards))
    models = [model for model in CATALOGUE if model.size < 5e9]
    talk = Talk(every=0.3, turns=3.0, think=4.0, question=100.0, answer=80.0, document=0.3, wide=0.0)
    asks = talks(rng, talk, 60.0, models, zipf(models, 1.0), 40)
    what = f"8 hosts of 4 kinds with 2 slots, {len(models)} models, 40 people; a minute"
    return Scenario("minute", what, places, numbered(asks), warm=True)
