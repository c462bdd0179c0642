"""Looks at a gateway, made short."""

from collections import Counter
from typing import Any

from gateway.top.look import Look, SeenFinding, SeenFleet, SeenGeneration, SeenHost, SeenModel, SeenReadiness
from gateway.top.scrape import Scrape

WALL = 1_800_000_000.0
READY = SeenReadiness(ready=True, storage="up")


def host(name: str = "gpu1", **rest: Any) -> SeenHost:
    """A healthy one."""
    usual = {"health": "healthy", "version": "0.33.0", "latency_seconds": 0.003, "seen_seconds_ago": 1.0}
    return SeenHost(name, **usual | rest)


def generation(id_: str, model: str = "llama3:8b", **rest: Any) -> SeenGeneration:
    """One that streams on gpu1."""
    return SeenGeneration(id_, model, **{"phase": "streaming", "host": "gpu1"} | rest)


def look(
    *hosts: SeenHost,
    at: float = 0.0,
    generations: tuple[SeenGeneration, ...] = (),
    findings: tuple[SeenFinding, ...] = (),
    readiness: SeenReadiness = READY,
    outcomes: dict[str, int] | None = None,
    tokens: dict[str, int] | None = None,
    first_token: dict[float, int] | None = None,
    started: float = WALL - 100.0,
) -> Look:
    """A look at these hosts."""
    counted = Scrape(Counter(outcomes), Counter(tokens), Counter(first_token), "1.2", "compiled", started)
    return Look(at, WALL + at, SeenFleet(hosts or (host(),), findings), generations, readiness, counted)


def model(name: str = "llama3:8b", **rest: Any) -> SeenModel:
    """Six GiB, all of it on the GPU."""
    return SeenModel(name, **{"size": 6 * 2**30, "size_vram": 6 * 2**30, "context_length": 8192} | rest)
