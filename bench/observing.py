"""What being observed costs: ``python -m bench.observing``. No network but loopback, no other process; under half a minute.

1. A request's way from its id to its record, counted and logged, against the same way with nobody to tell: on the loop, and in all threads.
2. A chunk that passes the meter, which keeps the stream's end and measures gaps, against one that is only kept.
3. Timers of 1 ms, as late as chunks of streams are, while a gateway with 7,000 series is scraped over HTTP, and while it is not; and what a
   scrape takes, in both formats, against prometheus-client's rendering of as many.

Everything is measured in interleaved rounds; told are medians of the rounds, and of differences within a round. Of the compiled build, after
``make compiled``: ``PYTHONPATH=build/compiled python -P -m bench.observing``. The first line says which one it is.
"""

import argparse
import asyncio
import logging
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import msgspec
import prometheus_client

from bench.records import made
from gateway.app import Gateway
from gateway.config import Config, DatabaseConfig, HostConfig, LogConfig
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import Framing, Meter
from gateway.dialects.request import InferenceRequest, Kind
from gateway.fleet.host import AvailableModel, Observation
from gateway.ids import new_id
from gateway.loop import LOOP
from gateway.process import build, package_version
from gateway.record import Outcome, Usage
from gateway.relay.generations import Generations
from gateway.tasks import pause

REQUESTS, CHUNKS = 2_000, 50_000
KEPT_CHUNKS = 64
HOSTS = [f"gpu{number}" for number in range(4)]
MODELS = [f"model{number}:latest" for number in range(20)]
SERIES = 7_000
SCRAPE_EVERY_SECONDS = 0.1
CHUNK = (
    b'{"model":"m","created_at":"2026-11-22T13:35:17Z","message":{"role":"assistant","content":" the"},"done":false}\n'
)


def gateway(folder: str) -> Gateway:
    """One with hosts that nobody needs to reach, and as many series as 20 models on 4 hosts make."""
    hosts = tuple(HostConfig(name, f"http://127.0.0.1:{9 + number}", 4) for number, name in enumerate(HOSTS))
    log = LogConfig(format="json", path=str(Path(folder) / "corral.log"))
    corral = Gateway(Config(listen="127.0.0.1:0", hosts=hosts, log=log, database=DatabaseConfig("none")), seed=1)
    listed = tuple(AvailableModel(model, model, 1, {}) for model in MODELS)
    for name in HOSTS:
        corral.fleet.observe(name, Observation(0.0, "0.33.0", 0.001, (), listed))
    return corral


def fill(corral: Gateway) -> int:
    """Count requests of every model on every host until there are SERIES samples; how many there are."""
    for number, (outcome, model, host) in enumerate(product(Outcome, MODELS, HOSTS)):
        record = made(number, time.time())
        attempts = (msgspec.structs.replace(record.attempts[0], host=host),)
        corral.metrics.observe(
            msgspec.structs.replace(record, model=model, host=host, attempts=attempts, outcome=outcome)
        )
        if number >= len(MODELS) * len(HOSTS) and (there := samples(corral)) >= SERIES:
            return there
    return samples(corral)


def samples(corral: Gateway) -> int:
    """Lines at /metrics that are samples."""
    return sum(not line.startswith(b"#") for line in corral.metrics.render().splitlines())


# -- a request, a chunk ---------------------------------------------------------------------------------------------------------------


def request_of(id_: str) -> InferenceRequest:
    """An ordinary one."""
    return InferenceRequest(
        id_, ENDPOINTS["/api/chat"], Kind.INFER, MODELS[0], MODELS[0], True, (), 100, (), b"x" * 400
    )


async def requests(corral: Gateway, *, told: bool) -> tuple[float, float]:
    """Microseconds on the loop and in all threads, for one request. ``told``: with a record that is counted and logged."""
    loop, clock, rng = asyncio.get_running_loop(), time.monotonic, random.Random(1)
    sinks = (corral.metrics.observe, corral.log.generation) if told else ()
    generations = Generations(loop, clock, time.time, sinks)
    corral.log.attach(loop.call_later)
    like = made(1, time.time())
    usage: Usage = like.usage
    on_loop, cpu = 0.0, time.process_time()
    for _ in range(REQUESTS // 50):
        began = time.thread_time()
        for _ in range(50):
            request = request_of(new_id(time.time(), rng.getrandbits(52)) if told else "")
            if told:
                with generations.track(request, clock()) as generation:
                    generation.usage, generation.attempts, generation.status = usage, like.attempts, 200
                    generation.ended(Outcome.OK)
        generations.flush()
        on_loop += time.thread_time() - began
        await pause(0.001)
    await pause(0.25)  # the log's writer
    return on_loop / REQUESTS * 1e6, (time.process_time() - cpu) / REQUESTS * 1e6


def chunks(*, metered: bool) -> float:
    """Nanoseconds for one."""
    meter, clock = Meter(Framing.NDJSON), time.monotonic
    keep = deque[bytes](maxlen=KEPT_CHUNKS).append
    began = time.thread_time()
    if metered:
        for _ in range(CHUNKS):
            meter.passed(CHUNK, clock())
    else:
        for _ in range(CHUNKS):
            keep(CHUNK)
    return (time.thread_time() - began) / CHUNKS * 1e9


# -- a scrape -------------------------------------------------------------------------------------------------------------------------


async def late(corral: Gateway, seconds: float, *, scraped: bool) -> list[float]:
    """How late timers of 1 ms are, in milliseconds, sorted."""
    found: list[float] = []
    until = time.monotonic() + seconds
    scraper = asyncio.get_running_loop().create_task(_scrape(corral, until)) if scraped else None
    while (now := time.monotonic()) < until:
        await pause(0.001)
        found.append((time.monotonic() - now - 0.001) * 1000)
    if scraper is not None:
        await scraper
    return sorted(found)


async def _scrape(corral: Gateway, until: float) -> None:
    host, port = corral.address
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while await reader.read(1 << 20):
            pass
        writer.close()
        await pause(SCRAPE_EVERY_SECONDS)


def theirs(count: int) -> prometheus_client.CollectorRegistry:
    """As many samples of prometheus-client's own histograms."""
    registry = prometheus_client.CollectorRegistry()
    bounds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]
    family = prometheus_client.Histogram("x_seconds", "X.", ("model", "host"), buckets=bounds, registry=registry)
    for number in range(count // (len(bounds) + 4)):
        family.labels(f"model{number // 4}:latest", f"gpu{number % 4}").observe(1.0)
    return registry


def longest(corral: Gateway) -> float:
    """CPU of a scrape's longest piece, in milliseconds: so long does it hold up a stream."""
    found: list[float] = []
    pieces = corral.metrics.pieces()
    while True:
        began = time.thread_time()
        if next(pieces, None) is None:
            return max(found)
        found.append((time.thread_time() - began) * 1000)


def milliseconds(work: Callable[[], object]) -> float:
    """CPU of one call."""
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000


# -- all ------------------------------------------------------------------------------------------------------------------------------


def tell(what: str, unit: str, without: Sequence[float], with_: Sequence[float]) -> None:
    """Medians, and that of the differences within a round."""
    more = statistics.median(b - a for a, b in zip(without, with_, strict=True))
    print(
        f"{what:44} {statistics.median(without):9.3f} -> {statistics.median(with_):9.3f} {unit}, same rounds {more:+.3f}"
    )


async def measure(folder: str, rounds: int, seconds: float) -> None:
    """Everything, in turn."""
    print(f"corral {package_version()}, {build()}")
    corral = gateway(folder)
    ways: dict[str, tuple[list[float], list[float]]] = {
        key: ([], []) for key in ("loop", "threads", "chunk", "p50", "p99", "max")
    }
    scrapes: dict[str, list[float]] = {
        "text": [],
        "the longest piece of it": [],
        "OpenMetrics": [],
        "prometheus-client": [],
    }
    for turn in range(rounds):
        for told in (False, True) if turn % 2 else (True, False):
            for key, value in zip(("loop", "threads"), await requests(corral, told=told), strict=True):
                ways[key][told].append(value)
            ways["chunk"][told].append(chunks(metered=told))
    await corral.start()
    there = fill(corral)
    registry = theirs(there)
    logging.getLogger().setLevel("ERROR")
    try:
        for turn in range(rounds):
            for scraped in (False, True) if turn % 2 else (True, False):
                found = await late(corral, seconds, scraped=scraped)
                ways["p50"][scraped].append(found[len(found) // 2])
                ways["p99"][scraped].append(found[int(len(found) * 0.99)])
                ways["max"][scraped].append(found[-1])
            scrapes["text"].append(milliseconds(corral.metrics.render))
            scrapes["the longest piece of it"].append(longest(corral))
            scrapes["OpenMetrics"].append(milliseconds(lambda: corral.metrics.render(openmetrics=True)))
            scrapes["prometheus-client"].append(milliseconds(lambda: prometheus_client.generate_latest(registry)))
    finally:
        await corral.stop()
    tell("a request: id, record, metrics, log; the loop", "us", *ways["loop"])
    tell("the same, all threads", "us", *ways["threads"])
    tell("a chunk: metered, not only kept", "ns", *ways["chunk"])
    for key in ("p50", "p99", "max"):
        tell(f"a timer of 1 ms while scraped 10 times a s, {key}", "ms late", *ways[key])
    for name, took in scrapes.items():
        print(f"{f'rendering {there} samples, {name}':44} {statistics.median(took):9.3f} ms CPU")


def main() -> int:
    """All of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.observing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round of timers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=LOOP) as runner:
        runner.run(measure(folder, options.rounds, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
