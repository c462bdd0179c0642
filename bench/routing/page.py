"""Writes what was found into docs/routing.md, between two marks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.routing.bound import Bound
from bench.routing.figures import Figures, quantile
from bench.routing.sockets import Took
from bench.routing.trace import Scenario
from gateway.routing.ranks import Policy

PAGE = Path(__file__).parents[2] / "docs" / "routing.md"
BEGIN, END = "<!-- bench/routing -->", "<!-- end -->"
SOCKETS_BEGIN, SOCKETS_END = "<!-- bench/routing --sockets -->", "<!-- end of sockets -->"
TIGHT = 1.5
Results = Mapping[str, Figures]

METHOD = """\
Written by `python -m bench.routing`; do not edit. One trace a scenario, the same for each policy, through Corral's own fleet, waiting room and `choose` in
virtual time; hosts keep Ollama's rules for loads, eviction and slots, and begin empty. The other policies have Corral's waiting room too (late binding, fair
shares, one load at a time), which balancers that know them by name do not have: what is compared is the choice alone.

Seconds to the first token: p50, p95, p99, mean. *wasted*: host seconds spent loading, or on answers that broke off. *unfair*: the best served client's
service against the worst served one's, of those who ask for no more than an equal share; 1 is fair. *bound*: what nobody can beat who knows everything
beforehand (bench/routing/bound.py has the proof). A bound is called tight where some policy comes within 1.5 × of it. That of the last end is; that of the mean is not,
and cannot show how much better one could do: it knows of no contention for a host's memory, of no other request in a slot's cache, lets every request have the
fastest host, and where there is more to do than can be done it serves the short before the long, whoever asked, which nobody would call fair."""
SLOTS_METHOD = """\
The same traces, `predictive`, where the gateway is told other slots than hosts have: p50, p95 and mean to the first token. *held* is what a gateway that believes
what it is told would have: with no slots, one at a time; *found* is what was found out by answers."""
SOCKETS_METHOD = """\
`python -m bench.routing --sockets`: a trace of a minute through a gateway of its own process, over real sockets, to hosts that keep the same rules and
times; beside it the same trace in virtual time. Ties go to the first by name in both, as chance would make them two different runs; hosts begin warm, for the same reason."""


def table(scenario: Scenario, results: Results, least: Bound) -> str:
    """One scenario."""
    each = sorted(least.each)
    lines = [
        "| policy | p50 | p95 | p99 | mean | loads | reloads | tokens/s | wasted s | unfair | failed | last end s |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, found in results.items():
        lines.append(
            f"| `{name}` | {found.p50:.2f} | {found.p95:.2f} | {found.p99:.2f} | {found.mean:.2f} | {found.loads}"
            f" | {found.reloads} | {found.tokens_per_second:.0f} | {found.wasted_seconds:.0f} | {found.fairness:.2f}"
            f" | {found.failed} | {found.end:.0f} |"
        )
    lines.append(
        f"| bound | {quantile(each, 0.5):.2f} | {quantile(each, 0.95):.2f} | {quantile(each, 0.99):.2f} | {least.mean:.2f}"
        f" | | | | | | | {least.end:.0f} |"
    )
    return f"### {scenario.name}\n\n{scenario.what}; {len(scenario.asks)} requests.\n\n" + "\n".join(lines)


def goals(all_results: Mapping[str, Results], bounds: Mapping[str, Bound]) -> str:
    """Where predictive stands against the others and the bound."""
    lines = [
        "| scenario | p95 against `least_connections` | against the best other | mean against its bound | last end against its bound |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, results in all_results.items():
        mine = results[Policy.PREDICTIVE.value]
        others = {policy: found.p95 for policy, found in results.items() if policy != Policy.PREDICTIVE.value}
        best = min(others, key=lambda policy: others[policy])
        means, ends = [found.mean for found in results.values()], [found.end for found in results.values()]
        lines.append(
            f"| {name} | {others[Policy.LEAST_CONNECTIONS.value] / mine.p95:.1f} × | {others[best] / mine.p95:.2f} × (`{best}`)"
            f" | {mine.mean / bounds[name].mean:.1f} × ({_tight(means, bounds[name].mean)})"
            f" | {mine.end / bounds[name].end:.2f} × ({_tight(ends, bounds[name].end)}) |"
        )
    return "\n".join(lines)


def _tight(values: Sequence[float], bound: float) -> str:
    return "tight" if min(values) <= TIGHT * bound else "not tight"


def found_out(rows: Sequence[tuple[str, str, Figures, Figures]]) -> str:
    """What comes of slots that are not told, or told wrong: scenario, what is told, then as held and as found."""
    lines = [
        "| scenario | told | held | | | found | | |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, told, held, found in rows:
        numbers = [f"{value:.2f}" for one in (held, found) for value in (one.p50, one.p95, one.mean)]
        lines.append(f"| {name} | {told} | {' | '.join(numbers)} |")
    return f"### Slots that are not told\n\n{SLOTS_METHOD}\n\n" + "\n".join(lines)


def over_sockets(scenario: Scenario, in_virtual: Took, real: Took, rounds: int) -> str:
    """One trace in virtual and in real time."""
    lines = [
        "| | p50 s | p95 s | last end s | tokens/s |",
        "| --- | --: | --: | --: | --: |",
        f"| virtual time | {in_virtual.p50:.3f} | {in_virtual.p95:.2f} | {in_virtual.makespan:.1f} | {in_virtual.tokens_per_second:.0f} |",
        f"| sockets, median of {rounds} | {real.p50:.3f} | {real.p95:.2f} | {real.makespan:.1f} | {real.tokens_per_second:.0f} |",
        "| difference | "
        + " | ".join(f"{100 * (b / a - 1):+.1f} %" for a, b in zip(in_virtual, real, strict=True))
        + " |",
    ]
    head = f"{scenario.what}; {len(scenario.asks)} requests."
    return f"### Over sockets\n\n{SOCKETS_METHOD} {head}\n\n" + "\n".join(lines)


def costs(decisions: Mapping[int, float], compiled: bool) -> str:
    """What a decision costs."""
    how = "compiled" if compiled else "plain Python, not compiled"
    row = ", ".join(f"{seconds * 1e6:.0f} µs at {count:,} hosts" for count, seconds in decisions.items())
    return f"One decision costs, in CPU time ({how}): {row}."


def write(parts: list[str]) -> Path:
    """Put it between the marks."""
    return _between(BEGIN, END, [METHOD, *parts])


def write_sockets(part: str) -> Path:
    """The same of what was seen over sockets."""
    return _between(SOCKETS_BEGIN, SOCKETS_END, [part])


def _between(begin: str, end: str, parts: list[str]) -> Path:
    text = PAGE.read_text(encoding="utf-8")
    block = "\n\n".join([begin, *parts, end])
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not marked.search(text):
        raise SystemExit(f"{PAGE.name} has no {begin}")
    PAGE.write_text(marked.sub(lambda _: block, text), encoding="utf-8")
    return PAGE
