"""What keys and their limits cost: ``python -m bench.limits``. No network but loopback; a minute and a half. Needs gcc, for the simulated host.

1. What a request pays for its key, and for its key with every limit there is, in CPU on the loop: whose key it is, whether it may, the count, the headers
   of its answer, its end. Where nobody needs a key, none of it is done.
2. Answers to one key, of a gateway and a simulated host that are processes of their own, while another key is refused by its limit many times a second,
   and while it leaves the gateway alone: its client then asks the simulated host as often, so that it takes as much of the machine. In interleaved rounds
   of one run; told are medians of the rounds, and of the ratios within a round.

Of the compiled build, after ``make compiled``: ``PYTHONPATH=build/compiled python -P -m bench.limits``. The first line says which one it is.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from typing import NamedTuple

from bench.processes import BUILD, Running, build_wire, free_port, start, start_sims
from gateway.access.gate import Gate, asked_by, permit, require
from gateway.access.keys import Key, digest, make
from gateway.access.limits import Limits
from gateway.access.rights import KeyRole, Right
from gateway.access.tallies import Tallies
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.request import InferenceRequest, Kind
from gateway.process import build, package_version

REQUESTS = 20_000
KEYS = 1_000
GOAL_US = 10.0
GOAL_RATIO = 1.05
EVERYTHING = Limits(10**6, 10**12, 10**6, 10**14, 10**15)
PLAIN = {"stream": False, "options": {"temperature": 0}}
STREAM = {"stream": True, "options": {"num_predict": 20, "rate": 200, "silent_ms": 50}}
"""An answer at once, where nothing hides the gateway, nor the machine's other work; and one like a model's, which has the goal."""


class Quiet:
    """A generation that has said nothing."""

    tokens = 0


def cost_us(limits: Limits, dialect: str) -> float:
    """Microseconds of one request, with one key of many."""
    keys = [make(os.urandom) for _ in range(KEYS)]
    kept = [Key(f"key{number}", KeyRole.USER, digest(key), limits=limits) for number, key in enumerate(keys)]
    gate, tallies = Gate(time.time), Tallies(time.monotonic, time.time, lambda _name, _limit: None)
    gate.keep(kept)
    tallies.configure(kept)
    endpoint = ENDPOINTS["/v1/chat/completions" if dialect == "openai" else "/api/chat"]
    request = InferenceRequest("id", endpoint, Kind.INFER, "m:latest", "m:latest", True, (), 100, (), b"x" * 400)
    stream, header = Quiet(), f"Bearer {keys[KEYS // 2]}"
    began = time.thread_time()
    for _ in range(REQUESTS):
        who = gate.principal((header,), (), near=True)
        require(who, Right.INFER)
        permit(who, request.model)
        tallies.admit(who.name, dialect)
        mine = asked_by(who, request)
        tallies.told(mine.principal, dialect)
        tallies.leave(tallies.enter(mine.principal, stream), 0, 0)
    return (time.thread_time() - began) / REQUESTS * 1e6


# -- two keys at one gateway ----------------------------------------------------------------------------------------------------------


class Keys(NamedTuple):
    """Of who asks, and of who is refused."""

    asks: str
    refused: str


def started(sim: Running, keys: Keys) -> Running:
    """A gateway that knows both keys; the second has had enough."""
    port = free_port()
    told = "".join(
        f'[[keys]]\nname = "{name}"\nhash = "{digest(key)}"\n{more}\n\n'
        for name, key, more in (("asks", keys.asks, "rpm = 1000000"), ("refused", keys.refused, "rpm = 1"))
    )
    config, lines = BUILD / "limits.toml", BUILD / "limits-lines.log"
    lines.unlink(missing_ok=True)
    host = f'[[hosts]]\nname = "sim"\nurl = "http://127.0.0.1:{sim.port}"\nslots = 1000\n\n'
    config.write_text(f'{host}{told}[log]\nformat = "json"\npath = "{lines}"\n')
    command = [sys.executable, "-P", "-m", "gateway", "serve", "--listen", f"127.0.0.1:{port}"]
    env = {"CORRAL_CONFIG": str(config), "CORRAL_DATABASE_URL": "none"}
    return start("limits", command, port, ready_path="/healthz", env=env)


class Caller:
    """One connection with a key."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, more: dict[str, object]) -> tuple[int, float]:
        """A status, and the seconds until all of its answer was there."""
        body = json.dumps({"model": "bench:latest", "prompt": "Say something of an ordinary length.", **more})
        began = time.perf_counter()
        self._connection.request("POST", "/api/generate", body, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - began


def hammer(port: int, elsewhere: int, key: str, per_second: float, on: Event, over: Event) -> None:
    """A process that asks so often: the gateway while ``on``, where it is to be refused each time, else somebody else."""
    caller, other = Caller(port, key), Caller(elsewhere, key)
    caller.ask(PLAIN)  # the one that may
    refused = 0
    while not over.is_set():
        status, seconds = (caller if on.is_set() else other).ask(PLAIN)
        refused += status == 429
        threading.Event().wait(max(0.0, 1 / per_second - seconds))
    print(f"the other key was refused {refused} times")


def median_ms(caller: Caller, more: dict[str, object], seconds: float) -> float:
    """Of as many requests, one after the other, as fit."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        status, took = caller.ask(more)
        if status != 200:
            raise SystemExit(f"answered {status}")
        found.append(took * 1000)
    return statistics.median(found)


def beside(rounds: int, seconds: float, per_second: float) -> dict[str, tuple[list[float], list[float]]]:
    """Median milliseconds of each round, alone and beside: of answers at once, and of streams."""
    build_wire()
    keys = Keys(make(os.urandom), make(os.urandom))
    sims = start_sims()
    found: dict[str, tuple[list[float], list[float]]] = {"at once": ([], []), "a stream": ([], [])}
    on, over = multiprocessing.Event(), multiprocessing.Event()
    try:
        corral = started(sims[0], keys)
        other = multiprocessing.Process(
            target=hammer, args=(corral.port, sims[0].port, keys.refused, per_second, on, over)
        )
        try:
            other.start()
            caller = Caller(corral.port, keys.asks)
            for more in (PLAIN, STREAM):
                median_ms(caller, more, 1.0)
            for turn in range(rounds):
                for hammered in (False, True) if turn % 2 else (True, False):
                    if hammered:
                        on.set()
                    else:
                        on.clear()
                    for name, more in (("at once", PLAIN), ("a stream", STREAM)):
                        found[name][hammered].append(median_ms(caller, more, seconds))
        finally:
            over.set()
            other.join()
            corral.stop()
    finally:
        for sim in sims:
            sim.stop()
    return found


def tell(what: str, alone: Sequence[float], together: Sequence[float]) -> float:
    """Medians, and that of the ratios within a round."""
    ratio = statistics.median(b / a for a, b in zip(alone, together, strict=True))
    print(
        f"{what:30} {statistics.median(alone):9.3f} -> {statistics.median(together):9.3f} ms, same rounds x {ratio:.3f}"
    )
    return ratio


def main() -> int:
    """All of it; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each kind of request in a round")
    parser.add_argument("--per-second", type=float, default=100.0, help="requests of the other key that are refused")
    options = parser.parse_args()
    print(f"corral {package_version()}, {build()}")
    costs: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, limits, dialect in (
            ("a key", Limits(), "ollama"),
            ("a key with every limit", EVERYTHING, "ollama"),
            ("the same under /v1", EVERYTHING, "openai"),
        ):
            costs.setdefault(name, []).append(cost_us(limits, dialect))
    for name, took in costs.items():
        print(f"{name:30} {statistics.median(took):9.2f} us a request")
    found = beside(options.rounds, options.seconds, options.per_second)
    ratios = {name: tell(name, alone, together) for name, (alone, together) in found.items()}
    met = statistics.median(costs["a key with every limit"]) <= GOAL_US and ratios["a stream"] <= GOAL_RATIO
    print(
        f"goals: a request's key and limits within {GOAL_US:g} us, streams within x {GOAL_RATIO:g}: {'met' if met else 'missed'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
