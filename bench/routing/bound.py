"""What no policy can beat, even one that knows everything beforehand. Proven, not found by a search.

**Each request alone.** Its first token comes no sooner than the fastest host that has the model reads what is new in its prompt. All hosts
begin empty: until the model has been loaded by the host that loads it soonest after it was first asked for, nobody has an answer from it.

**Models that nobody asks for.** They leave memory KEEP_ALIVE_SECONDS after their last answer. If for so long, and for the longest that an answer before could take,
nobody asks, who asks next waits for the fastest load, or somebody before was kept waiting so that the model stays: for at least what the silence was longer. The
lesser of the two is added for each silence. They add up: who was kept waiting over two silences waited for both.

**All together, on average.** Let every request take what it takes on its fastest host, and let the whole fleet be one host as fast as all
slots together, which may interrupt what it does. A slot counts as what it does of any request's work at most in the time in which that request's fastest host does
all of it. Shortest remaining time first is then the best there is, and no schedule of the real
fleet ends sooner on average: the same starts are a schedule for it. From the ends the work is taken off: what is left is waiting.

**The last end.** No sooner than what arrives from any moment on can be done by all slots together.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from bench.routing.host import KEEP_ALIVE_SECONDS
from bench.routing.trace import Ask, Scenario
from bench.routing.world import Card


class Bound(NamedTuple):
    """Seconds to the first token, least possible: of each request in order of arrival, and on average. ``end``: of the last answer."""

    each: tuple[float, ...]
    mean: float
    end: float


def bound(scenario: Scenario) -> Bound:
    """For one trace."""
    cards = {
        ask.model.name: list({place.card for place in scenario.places if place.fits(ask.model)})
        for ask in scenario.asks
    }
    ready: dict[str, float] = {}
    each: list[float] = []
    cold: list[float] = []
    work: list[float] = []
    for ask in scenario.asks:
        there = cards[ask.model.name]
        ready.setdefault(ask.model.name, ask.at + min(card.load_seconds(ask.model) for card in there))
        reading = min(_reading(ask, card) for card in there)
        cold.append(max(0.0, ready[ask.model.name] - ask.at))
        each.append(cold[-1] + reading)
        work.append(min(_seconds(ask, card) for card in there))
    speed = _speed(scenario, cards)
    waits = _pooled_wait([ask.at for ask in scenario.asks], work, speed)
    reading_mean = sum(min(_reading(ask, card) for card in cards[ask.model.name]) for ask in scenario.asks)
    mean = max(sum(each) + _reloads(scenario.asks, cards, cold), waits + reading_mean) / len(each)
    return Bound(tuple(each), mean, _end(scenario.asks, work, speed))


def _seconds(ask: Ask, card: Card) -> float:
    return _reading(ask, card) + ask.output_tokens / card.decode_rate(ask.model)


def _speed(scenario: Scenario, cards: dict[str, list[Card]]) -> float:
    """Of all slots together, in slots of whichever host is the fastest for a request: none counts for more than it does of any request."""
    fastest = [min(_seconds(ask, card) for card in cards[ask.model.name]) for ask in scenario.asks]
    shares = {
        card: max(
            [
                least / _seconds(ask, card)
                for ask, least in zip(scenario.asks, fastest, strict=True)
                if card in cards[ask.model.name]
            ],
            default=0.0,
        )
        for card in {place.card for place in scenario.places}
    }
    return sum(shares[place.card] * place.slots for place in scenario.places)


def _reloads(asks: tuple[Ask, ...], cards: dict[str, list[Card]], waits: Sequence[float]) -> float:
    """Seconds that silences cost at least, beside ``waits``, which each request has anyhow."""
    last: dict[str, float] = {}  # when a model was asked for last
    longest: dict[str, float] = {}  # that an answer so far can take, with what it is known to have waited
    lost = 0.0
    for ask, wait in zip(asks, waits, strict=True):
        name, there = ask.model.name, cards[ask.model.name]
        more = 0.0
        if name in last:
            silent = ask.at - last[name] - KEEP_ALIVE_SECONDS - longest[name]
            more = max(0.0, min(silent, *(card.load_seconds(ask.model) for card in there)))
        lost += more
        whole = ask._replace(known_tokens=0)  # nothing of its prompt may be cached
        longest[name] = max(longest.get(name, 0.0), wait + more + max(_seconds(whole, card) for card in there))
        last[name] = ask.at
    return lost


def _reading(ask: Ask, card: Card) -> float:
    return (ask.prompt_tokens - ask.known_tokens) / card.prefill_rate(ask.model)


def _pooled_wait(arrivals: list[float], work: list[float], speed: float) -> float:
    """The least sum of waits: shortest remaining time first on one host of this speed."""
    left: list[float] = []
    now = ends = 0.0
    index = 0
    while index < len(arrivals) or left:
        if not left:
            now = arrivals[index]
        while index < len(arrivals) and arrivals[index] <= now:
            heapq.heappush(left, work[index] / speed)
            index += 1
        shortest = heapq.heappop(left)
        until = arrivals[index] if index < len(arrivals) else float("inf")
        if now + shortest <= until:
            now += shortest
            ends += now
        else:
            heapq.heappush(left, shortest - (until - now))
            now = until
    return max(0.0, ends - sum(arrivals) - sum(work))


def _end(asks: tuple[Ask, ...], work: list[float], speed: float) -> float:
    latest, after = 0.0, 0.0
    for ask, seconds in zip(reversed(asks), reversed(work), strict=True):
        after += seconds
        latest = max(latest, ask.at + seconds, ask.at + after / speed)
    return latest
