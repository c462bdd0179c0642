"""An upload and a pull through Corral to two simulated hosts: how much of them it holds in memory.

The hosts are Python (`corral simulate`): they check what they get and keep none of it. They share the cores with Corral and set the
pace; so MB/s is what all of them manage together here, and CPU and memory are Corral's alone.
"""

import hashlib
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.processes import Running, free_port, start
from bench.subject import LoadFailed, Sample, Subject

HOSTS = 2
MODEL, MODEL_BYTES = "llama3.2:1b", 1.3e9  # pulled by each host: above 1 GiB
PULL_BYTES_PER_SECOND = 100e6  # of an ordinary line: some 13 s, with a line of progress every 60 ms from each host
UPLOAD_BYTES = 2 * 1024**3
PIECE = bytes(range(256)) * 4096
LOOK_SECONDS = 0.05
UPLOAD_SECONDS, PULL_SECONDS = 300.0, 120.0


def start_hosts() -> list[Running]:
    """Hosts that have no model."""
    program = Path(sys.executable).with_name("corral")
    hosts = []
    for number in range(HOSTS):
        port = free_port()
        one = ["--hosts", 1, "--base-port", port, "--models", "", "--pull-bytes-per-second", PULL_BYTES_PER_SECOND]
        hosts.append(start(f"host{number}", [program, "simulate", *map(str, one)], port))
    return hosts


def warm_up(subject: Subject) -> None:
    """A small upload: connections and code paths are there before anything counts."""
    size = 16 * len(PIECE)
    if wrong := _upload(subject.proxy, _digest(size), size):
        raise LoadFailed(f"{subject.contender.name}: a warm-up upload was wrong: {wrong}")


def upload_and_pull(subject: Subject, seconds: float) -> Sample:
    """Both, one after the other, each beside what Corral held just before."""
    del seconds
    digest = _digest(UPLOAD_BYTES)
    upload, wrong = _weighed(subject, lambda: _upload(subject.proxy, digest, UPLOAD_BYTES))
    lines: list[str] = []
    pull, wrong_too = _weighed(subject, lambda: _pull(subject.proxy, lines))
    complaints = [text for text in (wrong, wrong_too) if text]
    return {
        **{f"upload_{key}": value for key, value in upload.items()},
        "upload_mb_per_second": UPLOAD_BYTES / 1e6 / upload["seconds"],
        **{f"pull_{key}": value for key, value in pull.items()},
        "pull_lines": len(lines),
        "failed": len(complaints),
    } | ({"first_error": complaints[0]} if complaints else {})


def _weighed(subject: Subject, work: Callable[[], str]) -> tuple[Sample, str]:
    """What Corral grew by at most while ``work`` ran (MiB), its CPU and the time (seconds); and what was wrong."""
    wrong: list[str] = []
    thread = threading.Thread(target=lambda: wrong.append(_tried(work)))
    before = most = subject.proxy.pss_kib()
    cpu, began = subject.cpu_ns(), time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        most = max(most, subject.proxy.pss_kib())
    took = time.monotonic() - began
    cpu = subject.cpu_ns() - cpu
    return {"growth_mib": (most - before) / 1024, "seconds": took, "cpu_seconds": cpu / 1e9}, wrong[0]


def _tried(work: Callable[[], str]) -> str:
    try:
        return work()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _upload(proxy: Running, digest: str, size: int) -> str:
    """What is wrong with the answer, or with what the hosts have; nothing where all is well."""
    path = f"/api/blobs/{digest}"
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=UPLOAD_SECONDS)
    try:
        connection.request("POST", path, _pieces(size), {"Content-Length": str(size)})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 201:
            return f"the upload was answered {answer.status}: {said[:200]!r}"
        connection.request("HEAD", path)
        has = connection.getresponse().status
        return "" if has == 200 else f"not all hosts have the blob: {has}"
    finally:
        connection.close()


def _digest(size: int) -> str:
    sha256 = hashlib.sha256()
    for piece in _pieces(size):
        sha256.update(piece)
    return f"sha256:{sha256.hexdigest()}"


def _pieces(size: int) -> Iterator[bytes]:
    return (PIECE for _ in range(size // len(PIECE)))


def _pull(proxy: Running, lines: list[str]) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PULL_SECONDS)
    try:
        connection.request("POST", "/api/pull", json.dumps({"model": MODEL}))
        answer = connection.getresponse()
        lines.extend(line.decode().strip() for line in answer)
        if answer.status != 200 or json.loads(lines[-1]) != {"status": "success"}:
            return f"the pull was answered {answer.status}: {lines[-1] if lines else 'nothing'}"
        pulled = max(json.loads(line).get("total", 0) for line in lines)
        return "" if pulled >= MODEL_BYTES else f"only {pulled} bytes were pulled"
    finally:
        connection.close()
