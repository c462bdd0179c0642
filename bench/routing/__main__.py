"""Policies compared in virtual time: ``python -m bench.routing`` replays every scenario under each and writes the tables of docs/routing.md; with ``--sockets``
one trace goes over real sockets as well, and that table is written."""

import argparse
import sys
import time
from collections.abc import Sequence

from bench.routing import page
from bench.routing.bound import bound
from bench.routing.decision import SIZES, seconds_of_one
from bench.routing.figures import Figures, figures
from bench.routing.replay import Replay
from bench.routing.sockets import compared
from bench.routing.trace import SCENARIOS, minute
from bench.routing.untold import untold
from gateway.routing import policy as compiled_or_not
from gateway.routing.ranks import Policy


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page if everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument(
        "--scenario", choices=list(SCENARIOS), action="append", help="only this one; nothing is written"
    )
    parser.add_argument("--policy", choices=[policy.value for policy in Policy], action="append", help="only this one")
    parser.add_argument(
        "--sockets",
        type=int,
        metavar="N",
        help="over real sockets, N times a minute, beside virtual time; nothing else",
    )
    options = parser.parse_args(arguments)
    if options.sockets:
        return _sockets(options.sockets)
    all_results: dict[str, dict[str, Figures]] = {}
    bounds = {}
    tables = []
    for name in options.scenario or SCENARIOS:
        scenario = SCENARIOS[name]()
        bounds[name] = bound(scenario)
        results = all_results[name] = {}
        for policy in [Policy(value) for value in options.policy or Policy]:
            began = time.process_time()
            results[policy.value] = figures(Replay(scenario, policy).run())
            print(f"{name} {policy.value}: {time.process_time() - began:.1f} s of CPU", file=sys.stderr, flush=True)
        tables.append(page.table(scenario, results, bounds[name]))
        print(f"{tables[-1]}\n", flush=True)
    if options.scenario or options.policy:
        return 0
    decisions = {count: seconds_of_one(count) for count in SIZES}
    found = compiled_or_not.__file__ or ""
    told = page.found_out(list(untold()))
    parts = [page.goals(all_results, bounds), page.costs(decisions, found.endswith(".so")), *tables, told]
    print(f"{parts[0]}\n\n{parts[1]}\n\n{told}\n\nwrote {page.write(parts).name}")
    return 0


def _sockets(rounds: int) -> int:
    scenario = minute()
    text = page.over_sockets(scenario, *compared(scenario, rounds), rounds)
    print(f"{text}\n\nwrote {page.write_sockets(text).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
