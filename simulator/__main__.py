"""`python -m simulator`: simulated Ollama hosts until Ctrl-C or SIGTERM."""

import argparse
import asyncio
import json
import math
import signal
from collections.abc import Callable, Sequence
from typing import Any

from simulator.fleet import SimulatedFleet
from simulator.profile import HostProfile

_GENERATED = "tokens generated per second and slot (%(default)s)"
_READ = "tokens of a prompt read per second (%(default)s)"
_LOADED = "seconds to load 10^9 bytes of a model (%(default)s)"
_PULLED = "bytes per second of a pull (%(default)s)"


def _number(kind: Callable[[str], float], least: float, words: str, most: float = math.inf) -> Callable[[str], Any]:
    """What reads an option's value, or says in words what it must be."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{words}, not {text!r}")
        return value

    return read


_count = _number(int, 1, "a whole number from 1")
_room = _number(int, 0, "a whole number from 0")
_port = _number(int, 0, "a port from 0 to 65535", 65535)
_rate = _number(float, math.ulp(0.0), "a number above 0")
_amount = _number(float, 0, "a number from 0")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    usual = HostProfile()
    result = argparse.ArgumentParser(prog="corral simulate", description="Simulated Ollama hosts, for trying out.")
    add = result.add_argument
    add("--hosts", type=_count, default=3, metavar="N", help="how many (%(default)s)")
    add("--base-port", type=_port, default=11501, metavar="PORT", help="port of the first; 0: free ones (%(default)s)")
    add("--listen", default="127.0.0.1", metavar="ADDRESS", help="where to listen (%(default)s)")
    add("--models", default=",".join(map(str, usual.models)), help="names, with commas between them (%(default)s)")
    speed = result.add_argument_group("speed")
    speed.add_argument("--tokens-per-second", type=_rate, default=usual.tokens_per_second, metavar="N", help=_GENERATED)
    speed.add_argument(
        "--prefill-tokens-per-second", type=_rate, default=usual.prefill_tokens_per_second, metavar="N", help=_READ
    )
    speed.add_argument(
        "--load-seconds-per-gb", type=_amount, default=1e9 / usual.load_bytes_per_second, metavar="S", help=_LOADED
    )
    speed.add_argument(
        "--pull-bytes-per-second", type=_rate, default=usual.pull_bytes_per_second, metavar="N", help=_PULLED
    )
    room = result.add_argument_group("room")
    add = room.add_argument
    add("--parallel", type=_count, default=usual.parallel, metavar="N", help="slots of each loaded model (%(default)s)")
    add(
        "--max-queue",
        type=_room,
        default=usual.max_queue,
        metavar="N",
        help="requests waiting for a load (%(default)s)",
    )
    add("--max-loaded", type=_count, default=usual.max_loaded, metavar="N", help="models in memory (%(default)s)")
    add("--vram", type=_amount, default=usual.vram_bytes / 1024**3, metavar="GIB", help="0: no GPU (%(default)s)")
    add("--context-length", type=_count, default=usual.context_length, metavar="N", help="in tokens (%(default)s)")
    add(
        "--keep-alive",
        type=float,
        default=usual.keep_alive_seconds,
        metavar="S",
        help="negative: for ever (%(default)s)",
    )
    add = result.add_argument
    add("--num-predict", type=int, metavar="N", help="tokens of an answer that nothing limits (by the seed)")
    add("--ollama-version", default=usual.version, metavar="V", help="what /api/version says (%(default)s)")
    add("--seed", type=int, default=1, help="the same seed gives the same answers (%(default)s)")
    add("--json", action="store_true", help="print one JSON object for each host: name, url, port, vram_bytes")
    return result


def profile(given: argparse.Namespace) -> HostProfile:
    """The profile of every host."""
    return HostProfile(
        models=tuple(name.strip() for name in given.models.split(",") if name.strip()),
        vram_bytes=int(given.vram * 1024**3),
        parallel=given.parallel,
        max_queue=given.max_queue,
        max_loaded=given.max_loaded,
        tokens_per_second=given.tokens_per_second,
        prefill_tokens_per_second=given.prefill_tokens_per_second,
        load_bytes_per_second=1e9 / given.load_seconds_per_gb if given.load_seconds_per_gb > 0 else float("inf"),
        pull_bytes_per_second=given.pull_bytes_per_second,
        context_length=given.context_length,
        keep_alive_seconds=given.keep_alive,
        version=given.ollama_version,
        num_predict_default=given.num_predict,
    )


async def run(given: argparse.Namespace) -> None:
    """Start the hosts, say where they are, and stop them when told to."""
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    fleet = SimulatedFleet.of(given.hosts, profile(given), seed=given.seed)
    await fleet.start(given.base_port, given.listen)
    try:
        for host in fleet:
            facts = {"name": host.name, "url": host.url, "port": host.port, "vram_bytes": host.profile.vram_bytes}
            print(json.dumps(facts) if given.json else f"{host.name} {host.url}", flush=True)  # noqa: T201
        await over.wait()
    finally:
        await fleet.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop: 0; 1 when a port is taken; 2 for a wrong command line."""
    commands = parser()
    given = commands.parse_args(arguments)
    if given.base_port and given.base_port + given.hosts > 65536:
        commands.error(f"no ports from {given.base_port} on for {given.hosts} hosts: the last is 65535")
    try:
        asyncio.run(run(given))
    except (OSError, ValueError) as error:
        commands.exit(1, f"corral simulate: {getattr(error, 'strerror', None) or error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
