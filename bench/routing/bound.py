"""What no policy can beat, even one that knows everything beforehand. Proven, not found by a search.

**Each request alone.** Its first token comes no sooner than the fastest host that has the model reads what is new in its prompt. All hosts
begin empty: until the model has been loaded by the host that loads it soonest after it was first asked for, nobody has an answer from it.

**All together, on average.** Let every request take what it takes on its fastest host, and let the whole fleet be one host as fast as all
slots together, which may interrupt what it does. Shortest remaining time first is then the best there is, and no schedule of the real
fleet ends sooner on average: the same starts are a schedule for it. From the ends the work is taken off: what is left is waiting.

**The last end.** No sooner than what arrives from any moment on can be done by all slots together.
"""

import heapq
from typing import NamedTuple

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
    work: list[float] = []
    for ask in scenario.asks:
        there = cards[ask.model.name]
        ready.setdefault(ask.model.name, ask.at + min(card.load_seconds(ask.model) for card in there))
        reading = min(_reading(ask, card) for card in there)
        each.append(max(0.0, ready[ask.model.name] - ask.at) + reading)
        work.append(min(_reading(ask, card) + ask.output_tokens / card.decode_rate(ask.model) for card in there))
    slots = sum(place.slots for place in scenario.places)
    waits = _pooled_wait([ask.at for ask in scenario.asks], work, slots)
    reading_mean = sum(min(_reading(ask, card) for card in cards[ask.model.name]) for ask in scenario.asks)
    mean = max(sum(each), waits + reading_mean) / len(each)
    return Bound(tuple(each), mean, _end(scenario.asks, work, slots))


def _reading(ask: Ask, card: Card) -> float:
    return (ask.prompt_tokens - ask.known_tokens) / card.prefill_rate(ask.model)


def _pooled_wait(arrivals: list[float], work: list[float], slots: int) -> float:
    """The least sum of waits: shortest remaining time first on one host as fast as all slots."""
    left: list[float] = []
    now = ends = 0.0
    index = 0
    while index < len(arrivals) or left:
        if not left:
            now = arrivals[index]
        while index < len(arrivals) and arrivals[index] <= now:
            heapq.heappush(left, work[index] / slots)
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


def _end(asks: tuple[Ask, ...], work: list[float], slots: int) -> float:
    latest, after = 0.0, 0.0
    for ask, seconds in zip(reversed(asks), reversed(work), strict=True):
        after += seconds
        latest = max(latest, ask.at + seconds, ask.at + after / slots)
    return latest
