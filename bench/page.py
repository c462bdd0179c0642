"""Writes docs/benchmarks.md: what was measured, on what, how, and whether it is what we promise."""

import platform
import re
import subprocess
import sys
from argparse import Namespace
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path

from bench.contenders import CONTENDERS, LITELLM, nginx_program
from bench.processes import HERE
from bench.scenarios import SCENARIOS
from bench.table import Samples, goal_table, scenario_table

PAGE = HERE.parent / "docs" / "benchmarks.md"

METHOD = """\
- **CPU** is on-CPU time from the scheduler (nanoseconds) of all threads of all processes of the proxy, ended threads
  included, from before the first connection to after the last answer, divided by answers or by relayed chunks. It includes
  opening the connections, routing, metrics, the record and the log line. It is comparable between proxies even where
  requests per second are not: client, host and proxy share this machine's cores.
- **Rounds** are interleaved: each round measures every contender once, and each begins with another one. Tables show medians of
  the rounds, CPU with its range; **× nginx** is the median of the ratios within the same round.
- **The client and the host** are C programs (`bench/wire/`), so that they cost little. Every answer is checked: status, strict
  chunked framing, each line in order, the number of lines, the final line. An answer that is wrong in any way is counted
  as wrong. LiteLLM's streams are SSE: their framing and end are checked, not the number of their chunks.
- **Chunks** are ~117 bytes, one write each, as Ollama writes one per token; each carries its send time, so that *chunk delay*
  is one-way, from the host's write to the client's read, without pacing. Streams are paced because chunks sent as fast as possible
  coalesce, which hides what a chunk costs. Where a contender's chunks/s fall short of `direct`'s, it did not keep the pace.
- **First byte** is from sending the request to the first byte of the answer's body. In the stream scenarios this includes the proxy's
  dialling the host; *added* is the median less that of `direct`.
- **Kept**: both Corrals answer the same requests, in interleaved rounds; only one has a database (SQLite, on the disk of this machine).
  The short streams take 0.1 s each on 100 connections, so about a thousand end every second. The goal compares the same rounds.
- **Memory** is the growth of the proportional set size with the streams open, divided by their number; the kernel's socket buffers are
  not in it. Contenders are started anew for it.
- **Disconnect** is from the client's close to the moment the host sees its own connection close, by one clock.
- **Managing** is Corral alone: a blob of 2 GiB is sent to two hosts in one request, and Corral checks its sha256 on the way; of a pull
  only the progress passes through it. The hosts are Corral's own simulator, in Python: they check what they get too, keep none of it
  and share the cores, so MB/s is what all of them manage together. CPU and memory are Corral's.
- nginx neither reads request bodies nor routes by model; it is the floor, not a competitor. Absolute numbers depend on the machine
  and on what else it does; ratios of the same round are what carries over. Differences under ~15 % are noise.
"""


def write(samples: Samples, left_out: dict[str, str], options: Namespace, took_seconds: float) -> Path:
    """Renders the page; returns where it is."""
    measured = [name for name in CONTENDERS if any(name in found for found in samples.values())]
    parts = [
        "# Benchmarks",
        "Written by `make bench`; do not edit. Corral runs as installed, with everything on: metrics, records and its log line to a file.",
        "## Goals",
        goal_table(samples),
        "## Where and when",
        "\n".join(f"- {line}" for line in _machine(options, took_seconds)),
        "## Who",
        "\n".join(f"- `{name}`: {CONTENDERS[name].what}{_release(name)}" for name in measured),
    ]
    if left_out:
        parts.append("\n".join(f"- left out: `{name}`: {_plain(reason)}" for name, reason in left_out.items()))
    for name in samples:
        parts += [
            f"## {name}",
            f"{_sentence(SCENARIOS[name].what)}. {_rounds(samples, name)}",
            scenario_table(samples, name),
        ]
    parts += ["## Method", METHOD.rstrip()]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return PAGE.relative_to(HERE.parent)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _plain(text: str) -> str:
    """Without line breaks and without paths of this machine."""
    return " ".join(text.replace(str(HERE.parent) + "/", "").split())


def _rounds(samples: Samples, scenario: str) -> str:
    rounds = max(len(found) for found in samples[scenario].values())
    return f"{rounds} rounds." if rounds > 1 else "One round."


def _machine(options: Namespace, took_seconds: float) -> list[str]:
    model = "unknown processor"
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    packages = ("aiohttp", "uvloop", "httptools", "fastapi", "starlette", "uvicorn", "httpx")
    command = "python -m bench" if not sys.argv[1:] else f"python -m bench {' '.join(sys.argv[1:])}"
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; `{command}`, {options.rounds} rounds, {took_seconds:.0f} s; load average at the end {load}",
        f"{cpu_count()} cores ({model}), Linux {platform.release()}, all on the loopback, no TLS",
        f"Python {platform.python_version()}; "
        + ", ".join(f"{name} {release}" for name in packages if (release := _package(name))),
    ]


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _release(contender: str) -> str:
    if contender == "nginx" and (program := nginx_program()):
        told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False, timeout=10).stderr
        found = re.search(r"nginx/([\d.]+)", told)
        return f" (nginx {found[1]})" if found else ""
    if contender.startswith("corral") and (release := _package("ollama-corral")):
        return f" ({release})"
    if contender == "litellm":
        for folder in LITELLM.glob("lib/python*/site-packages/litellm-*.dist-info"):
            return f" (LiteLLM {folder.name.removeprefix('litellm-').removesuffix('.dist-info')})"
    return ""
