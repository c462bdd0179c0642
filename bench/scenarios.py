"""What is measured: each scenario takes one running contender through one round and returns its numbers.

Numbers are named with their unit; every sample has `failed`, the answers that were wrong in any way.
"""

import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import managing
from bench.processes import BUILD, Running, start_sims
from bench.subject import LoadFailed, Sample, Subject

SILENT_MS = 60_000
GIVE_UP_MS = 5_000
FEWER_STREAMS = {"fastapi-httpx": 1000}  # httpx's pool is searched from end to end: 5,000 never get going


@contextlib.contextmanager
def load(subject: Subject, mode: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command: list[str | Path] = [BUILD / "load", mode, "--port", str(subject.proxy.port), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """The next line that begins with this word; an early result is returned as it is."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith((word, "{")):
            return line
    assert process.stderr is not None
    raise LoadFailed(process.stderr.read().strip() or "load ended without a result")


def result_of(process: subprocess.Popen[str]) -> Sample:
    result: Sample = json.loads(wait_for(process, "{"))
    return result


def ask(running: Running, method: str, path: str, body: Sample | None = None) -> Sample:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None)
        answer: Sample = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def tell_host(subject: Subject, chunks: int, rate: float) -> None:
    """Sets the host's defaults, for contenders that cannot carry our options."""
    ask(subject.sim, "POST", "/_set", {"num_predict": chunks, "rate": rate})


def warm_up(subject: Subject) -> None:
    """Connections, caches and code paths are warm before anything counts."""
    tell_host(subject, 10, 50)
    answers = subject.contender.question(stream=False)
    streams = subject.contender.question(stream=True, chunks=10, rate=50)
    for mode, arguments in (("unary", [*answers, "--seconds", 0.3]), ("stream", [*streams, "--ramp", 100])):
        with load(subject, mode, "--connections", 20, *arguments) as process:
            result = result_of(process)
        if result["failed"]:
            raise LoadFailed(f"{subject.contender.name}: a warm-up answer was wrong: {result['first_error']}")


@dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    run: Callable[[Subject, float], Sample]
    contenders: tuple[str, ...]
    most_rounds: int = 100
    fresh: bool = False  # every round begins with a newly started contender
    hosts: Callable[[], list[Running]] = start_sims
    warm_up: Callable[[Subject], None] = warm_up


def unary(subject: Subject, seconds: float) -> Sample:
    question = subject.contender.question(stream=False)
    dialled = ask(subject.sim, "GET", "/_stats")["accepted"]
    before = subject.cpu_ns()
    with load(subject, "unary", *question, "--connections", 32, "--seconds", seconds) as process:
        result = result_of(process)
    cpu = subject.cpu_ns() - before
    dialled = ask(subject.sim, "GET", "/_stats")["accepted"] - dialled - 1  # the last one is this question itself
    return {
        "cpu_us": cpu / 1000 / max(1, result["answers"]),
        "dialled": dialled,
        "per_second": result["answers"] / max(result["seconds"], 1e-9),
        "first_byte_p50_us": result["first_byte_us"]["p50"],
        "first_byte_p99_us": result["first_byte_us"]["p99"],
        "failed": result["failed"],
    } | _complaint(result)


def streams(connections: int, rate: float, ramp_ms: int) -> Callable[[Subject, float], Sample]:
    """Paced streams. A chunk's price is taken while all of them are open; what is left over is the price of opening and closing."""

    def run(subject: Subject, seconds: float) -> Sample:
        chunks = int(rate * (seconds + 2 * ramp_ms / 1000 + 0.5))
        tell_host(subject, chunks, rate)
        question = subject.contender.question(stream=True, chunks=chunks, rate=rate)
        expect = [] if subject.contender.openai else ["--expect", chunks]
        sent_before, cpu_before = ask(subject.sim, "GET", "/_stats")["chunks"], subject.cpu_ns()
        with load(subject, "stream", *question, *expect, "--connections", connections, "--ramp", ramp_ms) as process:
            if _poll(subject.sim, "live", connections - 1) is None:
                raise LoadFailed(f"{subject.contender.name}: not all streams were open at the same time")
            sent, cpu, began = ask(subject.sim, "GET", "/_stats")["chunks"], subject.cpu_ns(), time.monotonic()
            time.sleep(seconds)
            cpu, sent, window = (
                subject.cpu_ns() - cpu,
                ask(subject.sim, "GET", "/_stats")["chunks"] - sent,
                time.monotonic() - began,
            )
            result = result_of(process)
        cpu_chunk = cpu / 1000 / max(1, sent)
        all_cpu, all_sent = subject.cpu_ns() - cpu_before, ask(subject.sim, "GET", "/_stats")["chunks"] - sent_before
        return {
            "cpu_us": cpu_chunk,
            "cpu_stream_us": max(0.0, (all_cpu / 1000 - cpu_chunk * all_sent) / connections),
            "per_second": sent / window,
            "kept_up": sent / window / (connections * rate),
            "first_byte_p50_us": result["first_byte_us"]["p50"],
            "first_byte_p99_us": result["first_byte_us"]["p99"],
            "delay_p50_us": result["delay_us"]["p50"],
            "delay_p99_us": result["delay_us"]["p99"],
            "failed": result["failed"],
        } | _complaint(result)

    return run


def beside_requests(subject: Subject, seconds: float) -> Sample:
    """Paced streams, whose chunks are timed, beside so many short ones that a thousand requests a second leave a record."""
    rate, watched, others, length = 50, 50, 100, 5
    tell_host(subject, length, rate)
    short = subject.contender.question(stream=True, chunks=length, rate=rate)
    long = subject.contender.question(stream=True, chunks=int(rate * seconds), rate=rate)
    total = int(
        others * (seconds + 1) * rate / length
    )  # a second more: they are there from the first chunk to the last
    with load(subject, "stream", *short, "--connections", others, "--total", total) as beside:
        if _poll(subject.sim, "live", others // 2) is None:
            raise LoadFailed(f"{subject.contender.name}: the short streams did not come")
        cpu, began = subject.cpu_ns(), time.monotonic()
        with load(subject, "stream", *long, "--connections", watched, "--expect", int(rate * seconds)) as process:
            result = result_of(process)
        cpu, took = subject.cpu_ns() - cpu, time.monotonic() - began
        among = result_of(beside)
    return {
        "core": cpu / 1e9 / took,
        "per_second": among["answers"] / among["seconds"],
        "delay_p50_us": result["delay_us"]["p50"],
        "delay_p99_us": result["delay_us"]["p99"],
        "failed": result["failed"] + among["failed"],
    } | _complaint(result if result["failed"] else among)


def memory(subject: Subject, seconds: float) -> Sample:
    """Opens all streams, weighs the proxy while they are open, then lets them end and checks each."""
    connections = FEWER_STREAMS.get(subject.contender.name, 5000)
    question = subject.contender.question(stream=True, chunks=1_000_000_000, rate=0.5)
    before = subject.proxy.pss_kib()
    began = time.monotonic()
    with load(subject, "hold", *question, "--connections", connections, "--ramp", connections) as process:
        early = wait_for(process, "held")
        opened = time.monotonic() - began
        time.sleep(min(seconds, 2))
        held = subject.proxy.pss_kib()
        ask(subject.sim, "POST", "/_finish")
        result = json.loads(early) if early.startswith("{") else result_of(process)
    return {
        "streams": connections,
        "kib_per_stream": (held - before) / connections,
        "before_mib": before / 1024,
        "held_mib": held / 1024,
        "opened_seconds": opened,
        "failed": connections - result["answers"],
    } | _complaint(result)


def stall(subject: Subject, seconds: float) -> Sample:
    """One reader stops reading a 100 MB stream and later reads it all; the proxy should hold the host back, not hoard.

    A tenth of it is carried at full speed first, so that only what the stall adds is counted.
    """
    lines = 900_000
    question = subject.contender.question(stream=True, chunks=lines // 10, rate=0)
    with load(subject, "stream", *question) as process:
        result_of(process)
    question = subject.contender.question(stream=True, chunks=lines, rate=0)
    before = most = subject.proxy.pss_kib()
    with load(subject, "stall", *question, "--expect", lines, "--seconds", seconds) as process:
        line = wait_for(process, "stalled")
        until = time.monotonic() + seconds
        while line.startswith("stalled") and time.monotonic() < until:
            time.sleep(0.05)
            most = max(most, subject.proxy.pss_kib())
        result = json.loads(line) if line.startswith("{") else result_of(process)
    return {
        "growth_mib": (most - before) / 1024,
        "megabytes": result["bytes"] / 1e6,
        "failed": result["failed"],
    } | _complaint(result)


def disconnect(subject: Subject, seconds: float) -> Sample:
    """The client leaves while the host is silent; how long until the host sees its connection close."""
    del seconds
    closed_ms: list[float] = []
    open_still = tries = 0
    body = json.dumps({"model": "bench:latest", "prompt": "x", "options": {"silent_ms": SILENT_MS, "num_predict": 1}})
    question = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    for _ in range(50):
        tries += 1
        stats = ask(subject.sim, "GET", "/_stats")
        live, aborted = stats["live"], stats["aborted"]
        with socket.create_connection(("127.0.0.1", subject.proxy.port), timeout=5) as client:
            client.sendall(question.encode())
            if _poll(subject.sim, "live", live) is None:
                raise LoadFailed("the request did not reach the host")
            left_at = time.monotonic_ns()
        after = _poll(subject.sim, "aborted", aborted)
        if after is None:
            open_still += 1
        else:
            closed_ms.append((after["last_abort_ns"] - left_at) / 1e6)
        if open_still == 3:  # it does not notice: three proofs will do
            break
    closed_ms.sort()
    sample = {"tries": float(tries), "open_still": float(open_still), "failed": 0.0}
    if closed_ms:
        sample["closed_p50_ms"] = closed_ms[len(closed_ms) // 2]
        sample["closed_max_ms"] = closed_ms[-1]
    return sample


def _poll(sim: Running, key: str, more_than: int) -> Sample | None:
    """The host's numbers once this one has grown; None when it does not."""
    until = time.monotonic() + GIVE_UP_MS / 1000
    while time.monotonic() < until:
        stats = ask(sim, "GET", "/_stats")
        if stats[key] > more_than:
            return stats
        time.sleep(0.002)
    return None


def _complaint(result: Sample) -> Sample:
    return {"first_error": result["first_error"]} if result["failed"] else {}


ALL = ("direct", "nginx", "corral", "corral-uncompiled", "naive", "fastapi-httpx", "litellm")
NATIVE = tuple(name for name in ALL if name != "litellm")
PROXIES = ("nginx", "corral", "naive", "fastapi-httpx")

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "unary", "32 connections, each asking again as soon as it is answered; answers of ~400 bytes", unary, ALL
        ),
        Scenario("stream-200", "200 streams at 50 chunks/s each, opened over 0.5 s", streams(200, 50, 500), NATIVE),
        Scenario(
            "stream-1000",
            "1,000 streams at 25 chunks/s each, opened over 2 s; FastAPI + httpx would need more than a whole core for it",
            streams(1000, 25, 2000),
            tuple(name for name in NATIVE if name != "fastapi-httpx"),
        ),
        Scenario(
            "slow",
            "20 streams at 25 chunks/s each, opened over 0.2 s",
            streams(20, 25, 200),
            ("direct", *PROXIES, "litellm"),
            most_rounds=3,
        ),
        Scenario(
            "kept",
            "50 streams at 50 chunks/s each, beside a thousand short ones a second, each of which leaves a record; without a database, and"
            " with one",
            beside_requests,
            ("direct", "corral", "corral-kept"),
        ),
        Scenario(
            "memory-5000",
            "streams open at a time, opened at 1,000/s; memory is the growth of the proportional set size (PSS)",
            memory,
            PROXIES,
            1,
            fresh=True,
        ),
        Scenario("stall", "one reader stops reading a 100 MB stream, then reads it all", stall, PROXIES, 3, fresh=True),
        Scenario("disconnect", "the client leaves while the host is silent, 50 times", disconnect, PROXIES, 1),
        Scenario(
            "managing",
            "a blob of 2 GiB is uploaded to two hosts, then both pull a model of 1.2 GiB at 100 MB/s each; growth is the largest of the"
            " proportional set size (PSS) over what it was just before",
            managing.upload_and_pull,
            ("corral",),
            1,
            hosts=managing.start_hosts,
            warm_up=managing.warm_up,
        ),
    )
}
