"""What keeping records costs, and what asking for them takes: ``python -m bench.records``.

1. A process that puts 1,000 records a second into a database, beside one that puts none: CPU, and how late a timer of 1 ms fires, in
   interleaved rounds. A stream's chunk waits for the event loop just as such a timer does.
   What that does to relayed streams: ``python -m bench --scenario kept``.
2. A week of 10 million requests, as its sums: what each question takes.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import text

from gateway.config import DatabaseConfig
from gateway.loop import LOOP
from gateway.record import Accounting, Attempt, AttemptOutcome, GenerationRecord, Outcome, Phase, Usage
from gateway.store import bulk
from gateway.store.engine import Database, State
from gateway.store.entries import SUMS, bucket
from gateway.store.records import Records
from gateway.store.schema import HISTOGRAM_BUCKETS, rollup_1m
from gateway.store.stats import Stats, Wanted
from gateway.tasks import pause

PER_SECOND = 1000
REQUESTS = 10_000_000
DAYS = 7
MODELS, HOSTS = [f"model{n}:latest" for n in range(6)], [f"gpu{n}" for n in range(8)]
TRIES = 5


def made(number: int, at: float) -> GenerationRecord:
    """An ordinary stream."""
    host, model = HOSTS[number % len(HOSTS)], MODELS[number % len(MODELS)]
    attempt = Attempt(host, AttemptOutcome.OK, 0.01, 2.0, 200)
    usage = Usage(100, 200, Accounting.REPORTED, 0.0, 0.1, 1.8)
    return GenerationRecord(
        at, f"{number:024x}", "ollama", "/api/chat", "chat", model, model, True, None, "10.0.0.9", Outcome.OK, "",
        Phase.DONE, None, 200, host, False, 0.01, 0.2, 2.0, 0.03, None, usage, 200, 400, 20_000, (attempt,), None,
    )  # fmt: skip


async def write(url: str, seconds: float, rate: int) -> dict[str, float]:
    """CPU as a share of a core, and lateness in ms."""
    database = Database(DatabaseConfig(url), time.monotonic)
    await database.start(60.0)
    assert database.state is State.UP, database.why
    records = Records(database, "bench", time.monotonic, time.time)
    records.start()
    late: list[float] = []
    put, began, cpu = 0, time.monotonic(), time.process_time()
    while (now := time.monotonic()) < began + seconds:
        for number in range(put, int((now - began) * rate)):
            records.put(made(number, time.time()))
            put += 1
        await pause(0.001)
        late.append((time.monotonic() - now - 0.001) * 1000)
    cpu = time.process_time() - cpu
    await records.close(30.0)
    await database.close()
    late.sort()
    return {"cpu": cpu / seconds, "p50_ms": late[len(late) // 2], "p99_ms": late[int(len(late) * 0.99)], "put": put}


def rounds(folder: str, url: str, seconds: float, number: int) -> None:
    """With and without, in turn; each in a loop of its own."""
    found: dict[int, list[dict[str, float]]] = {0: [], PER_SECOND: []}
    for turn in range(number):
        for rate in (0, PER_SECOND) if turn % 2 else (PER_SECOND, 0):
            where = url or f"sqlite:///{folder}/write{turn}{rate}.db"
            with asyncio.Runner(loop_factory=LOOP) as runner:
                found[rate].append(runner.run(write(where, seconds, rate)))
    for key, unit in (("cpu", "of a core"), ("p50_ms", "ms late, median"), ("p99_ms", "ms late, p99")):
        without, with_ = ([one[key] for one in found[rate]] for rate in (0, PER_SECOND))
        more = statistics.median(b - a for a, b in zip(without, with_, strict=True))
        print(f"{unit:18} {statistics.median(without):.4f} -> {statistics.median(with_):.4f}, same rounds {more:+.4f}")


def sums(rng: random.Random, n: int) -> list[float]:
    """Of ``n`` requests of one kind in one minute."""
    histograms = [[0] * HISTOGRAM_BUCKETS for _ in range(2)]
    for histogram, median_ms in zip(histograms, (200, 3000), strict=True):
        for _ in range(n):
            histogram[bucket(median_ms * rng.lognormvariate(0, 1))] += 1
    numbers = [n, 0, n, n, 100 * n, 200 * n, 200 * n, 1800.0 * n, 10.0 * n, 300.0 * n, 4000.0 * n]
    assert len(numbers) == SUMS
    return [*numbers, *histograms[0], *histograms[1]]


async def fill(database: Database, until: int) -> None:
    """A week, every minute of which had every model on every host."""
    rng, minutes = random.Random(1), DAYS * 24 * 60
    n = REQUESTS // (minutes * len(MODELS) * len(HOSTS))
    kinds = [sums(rng, n) for _ in range(200)]
    failed = sums(rng, 1)
    for start in range(until // 60 - minutes, until // 60, 60):
        keys = [(minute, m, h) for minute in range(start, start + 60) for m in MODELS for h in HOSTS]
        rows = [(*key, "", "ok", *rng.choice(kinds)) for key in keys]
        rows += [(*key, "", "upstream_error", *failed) for key in keys[::50]]
        async with database.writing() as connection:
            await bulk.insert(connection, rollup_1m, rows)
    every = ", ".join(f"sum({column})" for column in list(rollup_1m.columns.keys())[5:])
    async with database.writing() as connection:
        await connection.execute(
            text(
                f"INSERT INTO rollup_1h SELECT bucket / 60, model, host, principal, outcome, {every}"
                " FROM rollup_1m GROUP BY 1, 2, 3, 4, 5"
            )
        )


async def questions(url: str) -> None:
    """Each, best and median of some tries."""
    database = Database(DatabaseConfig(url), time.monotonic)
    await database.start(60.0)
    until = int(time.time() // 3600 * 3600)
    await fill(database, until)
    stats, day = Stats(database), Wanted(until - 86400, until)
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "24 h, summary": lambda: stats.totals(day, 3600),
        "24 h, models": lambda: stats.totals(day, 3600, "model"),
        "24 h, 5 minutes": lambda: stats.series(day, 300),
        "24 h, 5 minutes, one model": lambda: stats.series(day._replace(model=MODELS[0]), 300),
        "24 h, errors": lambda: stats.errors(day, 3600, 500),
        "6 h, hosts, by minute": lambda: stats.totals(day._replace(since=until - 6 * 3600), 60, "host"),
        "7 d, hours": lambda: stats.series(day._replace(since=until - 7 * 86400), 3600),
    }
    for name, question in asked.items():
        took: list[tuple[float, float]] = []
        for _ in range(TRIES):
            began, cpu = time.monotonic(), time.process_time()
            await question()
            took.append(((time.monotonic() - began) * 1000, (time.process_time() - cpu) * 1000))
        wall = [one[0] for one in took]
        print(
            f"{name:28} best {min(wall):6.0f} ms, median {statistics.median(wall):6.0f} ms, CPU {min(one[1] for one in took):6.0f} ms"
        )
    await database.close()


def main() -> int:
    """Both, or one."""
    parser = argparse.ArgumentParser(prog="python -m bench.records", description=__doc__)
    parser.add_argument("--only", choices=["write", "ask"])
    parser.add_argument("--database", default="", help="an empty one, instead of SQLite files in a temporary folder")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "ask":
            rounds(folder, options.database, options.seconds, options.rounds)
        if options.only != "write":
            asyncio.run(questions(options.database or f"sqlite:///{folder}/ask.db"))
            print(json.dumps({"bytes": sum(file.stat().st_size for file in Path(folder).glob("ask.db*"))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
