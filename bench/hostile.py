"""What a stream notices of attacks on others: ``python -m bench.hostile``. No network but loopback; some 25 seconds.

A gateway in a process of its own relays a stream of 200 lines a second, each stamped when its host wrote it; told is how old they are when they
arrive, in quiet and while another process throws 200 attacks a second at the gateway, of all that
tests/hostile has in its tables. Rounds of both
kinds take turns; what is added is the difference of the medians of their 99th percentiles.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from gateway.tasks import pause
from tests.builders import TEXT
from tests.hostile import test_bodies, test_framing, test_heads
from tests.hostile.siege import HEAD, MARK, chunked
from tests.processes import corral, python
from tests.scripted import Asked, ScriptedHost
from tests.stage import Client

ROUNDS, ROUND_SECONDS, LINES_A_SECOND = 4, 3.0, 200
ATTACKS = [attack for module in (test_framing, test_heads, test_bodies) for attack in module.ATTACKS.values()]
AT_A_TIME = 8
ATTACKS_A_SECOND, FIRST = 200, 50
SETTLE_SECONDS = 0.5  # what came while nobody read is old
TOLERATED_SECONDS = 0.5  # for an answer: who is told nothing leaves


async def stamped(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Lines that say when they were written, until nobody reads; to attackers, an end."""
    if b"canary" not in asked.body:
        writer.write(HEAD + chunked(b'{"done":true}\n', b""))
        return
    writer.write(HEAD)
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(chunked(b'{"response":"%.6f","done":false}\n' % time.monotonic()))
            await writer.drain()
            await pause(1 / LINES_A_SECOND)


async def attack(url: str) -> None:
    """Everything, again and again, in one chance order; once the FIRST are sent it says so."""
    room, sent = asyncio.Semaphore(AT_A_TIME), 0

    async def one(pieces: tuple[bytes, ...]) -> None:
        async with room, Client.to(url) as client:
            with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
                async with asyncio.timeout(TOLERATED_SECONDS):
                    await client.write(b"".join(pieces).replace(MARK, b"case0000"))
                    await client._reader.read(65536)

    async with asyncio.TaskGroup() as tasks:
        for each in itertools.cycle(random.Random(1).sample(ATTACKS, len(ATTACKS))):
            tasks.create_task(one(each.pieces))
            await pause(1 / ATTACKS_A_SECOND)
            if (sent := sent + 1) == FIRST:
                print("sent the first", flush=True)


async def ages(canary: Client, seconds: float) -> list[float]:
    """How old lines are that arrive in this time, in ms."""
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        lines = (await canary.chunk() or b"").splitlines()
        found += [(time.monotonic() - float(json.loads(line)["response"])) * 1000 for line in lines]
    return found


async def measure() -> None:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        async with ScriptedHost("gpu1", stamped) as host:
            flags = ("serve", "--listen", "127.0.0.1:0", "--host", f"gpu1={host.url}")
            async with corral(path, *flags, CORRAL_LOG_SAMPLE="0") as gateway:
                url = await gateway.listens()
                async with Client.to(url) as canary:
                    await canary.send("POST", "/api/generate", json.dumps({"model": TEXT, "prompt": "canary"}).encode())
                    await canary.head()
                    await ages(canary, 1.0)
                    quiet, besieged = [], []
                    for _ in range(ROUNDS):
                        await ages(canary, SETTLE_SECONDS)
                        quiet.append(percentiles(await ages(canary, ROUND_SECONDS)))
                        async with python(path, "-m", "bench.hostile", "attack", url) as attacker:
                            await attacker.line("sent")
                            await ages(canary, SETTLE_SECONDS)
                            besieged.append(percentiles(await ages(canary, ROUND_SECONDS)))
            await host.ledger.wait_until(lambda: host.ledger.connections_open == 0, 5.0)
    print(f"{len(ATTACKS)} kinds of attacks, up to {ATTACKS_A_SECOND} a second")
    for name, rounds in (("quiet", quiet), ("besieged", besieged)):
        p50, p99, most = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{name:10} a line's age p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {most:.2f} ms")
    added = statistics.median(one[1] for one in besieged) - statistics.median(one[1] for one in quiet)
    print(f"added at the 99th percentile: {added:.2f} ms")


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """(p50, p99, the most)."""
    cut = statistics.quantiles(values, n=100)
    return cut[49], cut[98], max(values)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["attack"])
    parser.add_argument("url", nargs="?", default="")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(attack(given.url) if given.what else measure())


if __name__ == "__main__":
    main()
