"""What one decision costs: CPU time of ``choose`` over fleets of several sizes, as they are in the middle of a busy day."""

import random
import time

from bench.routing.world import CATALOGUE
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.request import InferenceRequest, Kind
from gateway.fleet.host import AvailableModel, Host, LoadedModel, Observation
from gateway.fleet.registry import Fleet
from gateway.record import Usage
from gateway.routing.policy import Unroutable, choose

SIZES = (10, 50, 100, 1000)
ROUNDS, DECISIONS = 7, 40


def busy_fleet(count: int, rng: random.Random) -> Fleet:
    """Every host has every model, holds some of them, has learned of them, and half of all slots are taken."""
    fleet = Fleet([Host(f"gpu{number}", f"http://gpu{number}", 2) for number in range(count)])
    has = tuple([AvailableModel(model.name, f"digest-{model.name}", int(model.size), {}) for model in CATALOGUE])
    for name in fleet.names:
        held = rng.sample(CATALOGUE, 3)
        loaded = tuple([LoadedModel(m.name, f"digest-{m.name}", int(m.size), int(m.size), 4096, "", {}) for m in held])
        fleet.observe(name, Observation(1.0, "0.33.0", 0.001, loaded, has, 1.0, 1.0))
        for model in held:
            lease = fleet.lease(name, model.name, (), 2.0, cold=True, prefix=_chain(rng, 4), seconds=5.0)
            fleet.answered(lease, model.name, 3.0)
            fleet.learn(lease, 5.0, Usage(500, 200, load_seconds=3.0, prefill_seconds=0.5, decode_seconds=4.0))
            fleet.release(lease)
        if rng.random() < 0.5:
            fleet.lease(name, held[0].name, (), 4.0, cold=False, prefix=_chain(rng, 4), seconds=5.0)
    return fleet


def seconds_of_one(count: int) -> float:
    """The least of some rounds: CPU seconds of one decision over so many hosts."""
    rng = random.Random(count)
    fleet = busy_fleet(count, rng)
    asks = [_request(rng) for _ in range(DECISIONS)]
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for ask in asks:
            route = choose(ask, fleet.snapshot(5.0), rng)
            assert not isinstance(route, Unroutable)
        best = min(best, (time.process_time() - began) / DECISIONS)
    return best


def _chain(rng: random.Random, blocks: int) -> tuple[int, ...]:
    return tuple([rng.randrange(2**60) for _ in range(blocks)])


def _request(rng: random.Random) -> InferenceRequest:
    model = rng.choice(CATALOGUE).name
    chat = ENDPOINTS["/api/chat"]
    return InferenceRequest("decision", chat, Kind.INFER, model, model, True, (), 2100, _chain(rng, 4), b"")
