"""Side by side: `python -m bench` measures Corral, nginx and others in interleaved rounds and writes docs/benchmarks.md."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from bench import page, table
from bench.contenders import CONTENDERS, Contender
from bench.processes import BUILD, Running, Unavailable, build_wire, raise_file_limit
from bench.scenarios import SCENARIOS, Scenario
from bench.subject import LoadFailed, Sample, Subject


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if sys.platform != "linux":
        raise SystemExit("The benchmark reads /proc and uses epoll: it runs on Linux only.")
    raise_file_limit()
    build_wire()
    began = time.monotonic()
    samples: table.Samples = {}
    left_out: dict[str, str] = {}
    for scenario in (SCENARIOS[name] for name in options.scenario):
        names = [name for name in scenario.contenders if name in options.only and name not in left_out]
        measured = run_scenario(scenario, names, options.rounds, options.seconds, left_out)
        if measured:
            samples[scenario.name] = measured
            print(f"\n{scenario.name}: {scenario.what}\n{table.scenario_table(samples, scenario.name)}\n", flush=True)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    print(f"\n{table.goal_table(samples)}\n\n{time.monotonic() - began:.0f} s")
    (BUILD / "last.json").write_text(json.dumps(samples, indent=1))
    if options.write:
        print(f"wrote {page.write(samples, left_out, options, time.monotonic() - began)}")
    wrong = any(table.failures(samples, scenario, "corral") for scenario in samples)
    return 1 if wrong else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_names(CONTENDERS), help=f"some of: {', '.join(CONTENDERS)}")
    parser.add_argument("--scenario", type=_names(SCENARIOS), help=f"some of: {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="how long one measurement of a round lasts (default 3)"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of one second: a look, not a result")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help="write docs/benchmarks.md (by default when everything is measured)",
    )
    options = parser.parse_args(arguments)
    if options.write is None:
        options.write = not (options.only or options.scenario or options.quick)
    if options.quick:
        options.rounds, options.seconds = 2, 1.0
    options.only = options.only or list(CONTENDERS)
    options.scenario = options.scenario or list(SCENARIOS)
    return options


def _names(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(known)}")
        return names

    return parse


def run_scenario(
    scenario: Scenario, names: list[str], rounds: int, seconds: float, left_out: dict[str, str]
) -> dict[str, dict[int, Sample]]:
    """Rounds interleave the contenders, each round beginning with another one."""
    hosts = scenario.hosts()
    subjects: dict[str, Subject] = {}
    samples: dict[str, dict[int, Sample]] = {}
    try:
        for name in names:
            if not scenario.fresh:
                _bring_up(CONTENDERS[name], scenario, hosts, subjects, left_out)
        for number in range(min(rounds, scenario.most_rounds)):
            turn = number % len(names) if names else 0
            for name in [*names[turn:], *names[:turn]]:
                if scenario.fresh:
                    _bring_up(CONTENDERS[name], scenario, hosts, subjects, left_out)
                if name not in subjects:
                    continue
                try:
                    sample = scenario.run(subjects[name], seconds)
                except LoadFailed as error:
                    print(f"{scenario.name} {name}: {error}", file=sys.stderr)
                    sample = None
                if sample is not None:
                    samples.setdefault(name, {})[number] = sample
                    _tell(scenario, number, name, sample)
                if scenario.fresh:
                    _take_down(subjects.pop(name))
    finally:
        for subject in subjects.values():
            _take_down(subject)
        for host in hosts:
            host.stop()
    return {name: samples[name] for name in names if name in samples}


def _bring_up(
    contender: Contender,
    scenario: Scenario,
    hosts: list[Running],
    subjects: dict[str, Subject],
    left_out: dict[str, str],
) -> None:
    try:
        subject = Subject(contender, contender.start(hosts), hosts[0])
    except Unavailable as reason:
        left_out[contender.name] = str(reason)
        print(f"left out: {contender.name}: {reason}", file=sys.stderr)
        return
    try:
        scenario.warm_up(subject)
    except LoadFailed as error:
        left_out[contender.name] = str(error)
        print(f"left out: {contender.name}: {error}", file=sys.stderr)
        _take_down(subject)
        return
    subjects[contender.name] = subject


def _take_down(subject: Subject) -> None:
    if subject.proxy is not subject.sim:
        subject.proxy.stop()


def _tell(scenario: Scenario, number: int, name: str, sample: Sample) -> None:
    numbers = "  ".join(
        f"{key} {value:,.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in sample.items()
    )
    print(f"{scenario.name} round {number + 1} {name}: {numbers}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
