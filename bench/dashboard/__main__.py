"""The app, measured: ``python -m bench.dashboard`` writes the table of docs/app.md. Needs chromium; simulated hosts, the real gateway and the real app."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.dashboard import moving, page, painting, stopping
from bench.dashboard.found import Found, table
from bench.dashboard.stage import Stage
from bench.processes import raise_file_limit

ROUNDS = 20
PARTS: dict[str, Callable[[Stage, int], Iterator[Found]]] = {
    "moving": moving.measure,
    "stopping": stopping.measure,
    "answer": lambda stage, _rounds: painting.long_answer(stage),
    "sessions": lambda stage, rounds: painting.many(stage, max(1, rounds // 7)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page if everything was measured: 0; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.dashboard", description=__doc__)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="only this one; nothing is written")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each measurement (%(default)s)")
    parser.add_argument("--no-write", action="store_true", help="leave the page as it is")
    options = parser.parse_args(arguments)
    raise_file_limit()
    rows: list[Found] = []
    before = _load()
    with Stage() as stage:
        for name in options.only or PARTS:
            for found in PARTS[name](stage, options.rounds):
                print(table([found]).splitlines()[-1], flush=True)
                rows.append(found)
    print(f"\n{table(rows)}\n\nload average before {before}, after {_load()}")
    if not options.only and not options.no_write:
        print(f"wrote {page.write(rows, (before, _load())).name}")
    return 1 if any(row.met is False for row in rows) else 0


def _load() -> str:
    return " ".join(Path("/proc/loadavg").read_text().split()[:2])


if __name__ == "__main__":
    sys.exit(main())
