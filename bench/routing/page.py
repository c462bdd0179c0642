"""Writes what was found into docs/routing.md, between two marks."""

import re
from collections.abc import Mapping
from pathlib import Path

from bench.routing.bound import Bound
from bench.routing.figures import Figures, quantile
from bench.routing.trace import Scenario
from gateway.routing.ranks import Policy

PAGE = Path(__file__).parents[2] / "docs" / "routing.md"
BEGIN, END = "<!-- bench/routing -->", "<!-- end -->"
TIGHT = 1.5
Results = Mapping[str, Figures]

METHOD = """\
Written by `python -m bench.routing`; do not edit. One trace a scenario, the same for each policy, through Corral's own fleet, waiting room and `choose` in
virtual time; hosts keep Ollama's rules for loads, eviction and slots, and begin empty. The other policies have Corral's waiting room too (late binding, fair
shares, one load at a time), which balancers that know them by name do not have: what is compared is the choice alone.

Seconds to the first token: p50, p95, p99, mean. *wasted*: host seconds spent loading, or on answers that broke off. *unfair*: the best served client's
service against the worst served one's, of those who ask for no more than an equal share; 1 is fair. *bound*: what nobody can beat who knows everything
beforehand (bench/routing/bound.py has the proof). It knows of no contention for a host's memory, of no other request in a slot's cache, and lets every request
have the fastest host: it is called tight only where some policy comes within 1.5 × of its mean."""


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
        "| scenario | p95 against `least_connections` | against the best other | mean against the bound | last end against the bound |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, results in all_results.items():
        mine = results[Policy.PREDICTIVE.value]
        others = {policy: found.p95 for policy, found in results.items() if policy != Policy.PREDICTIVE.value}
        best = min(others, key=lambda policy: others[policy])
        tight = min(found.mean for found in results.values()) <= TIGHT * bounds[name].mean
        lines.append(
            f"| {name} | {others[Policy.LEAST_CONNECTIONS.value] / mine.p95:.1f} × | {others[best] / mine.p95:.2f} × (`{best}`)"
            f" | {mine.mean / bounds[name].mean:.1f} × ({'tight' if tight else 'not tight'})"
            f" | {mine.end / bounds[name].end:.2f} × |"
        )
    return "\n".join(lines)


def costs(decisions: Mapping[int, float], compiled: bool) -> str:
    """What a decision costs."""
    how = "compiled" if compiled else "plain Python, not compiled"
    row = ", ".join(f"{seconds * 1e6:.0f} µs at {count:,} hosts" for count, seconds in decisions.items())
    return f"One decision costs, in CPU time ({how}): {row}."


def write(parts: list[str]) -> Path:
    """Put it between the marks."""
    text = PAGE.read_text(encoding="utf-8")
    block = "\n\n".join([BEGIN, METHOD, *parts, END])
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not marked.search(text):
        raise SystemExit(f"{PAGE.name} has no {BEGIN}")
    PAGE.write_text(marked.sub(lambda _: block, text), encoding="utf-8")
    return PAGE
