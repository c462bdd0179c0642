"""Hosts of which a gateway is not told, or told wrong, how many requests they run at once: what comes of it, with and without finding out."""

from collections.abc import Iterator

from bench.routing.figures import Figures, figures
from bench.routing.replay import Replay
from bench.routing.trace import SCENARIOS, Scenario
from gateway.routing.ranks import Policy

TOLD = {0: "nothing", 4: "4 slots"}
SOME = ("homelab", "lab", "storm", "hostile")


class Believing(Replay):
    """What it is told it holds for true."""

    finds = False


def untold() -> Iterator[tuple[str, str, Figures, Figures]]:
    """Scenario, what was told, then what came of it: as held for true, and as found out."""
    for name in SOME:
        real = SCENARIOS[name]()
        for slots, words in TOLD.items():
            told = _told(real, slots)
            held, found = [figures(kind(told, Policy.PREDICTIVE).run()) for kind in (Believing, Replay)]
            yield name, words, held, found


def _told(scenario: Scenario, slots: int) -> Scenario:
    return scenario._replace(places=tuple([place._replace(told=slots) for place in scenario.places]))
