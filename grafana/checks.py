"""What is wrong with dashboards and rules, told without a Grafana and a Prometheus. Exceptions are listed with their reasons."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from grafana.known import Catalogue, Series
from grafana.lint import of_board
from grafana.panels import Json
from grafana.promql import Reader
from grafana.queries import JOB, STEP
from grafana.rules.file import Groups

WINDOWS = {
    "1h": "so many an hour, or a quantile of what is rare",
    "1d": "failures that must not be overlooked until tomorrow",
    "30d": "the period of the objectives",
}
"""Windows of panels that are not Grafana's own step."""

UNUSED = {
    "gen_ai_": "for dashboards of others, which know OpenTelemetry's names",
    "python_info": "corral_build_info has Python's version",
    "process_": "only some of what every process tells is worth a panel",
    "python_gc_": "idem",
}
"""Families that no panel and no rule shows, by how they begin."""


class Expression(NamedTuple):
    """One that somebody will evaluate. ``kind``: panel, annotation, variable, record or alert."""

    where: str
    kind: str
    text: str
    legend: str = ""


def mistakes(boards: Iterable[Json], rules: Groups, known: Catalogue) -> list[str]:
    """Everything that is wrong, a line each."""
    boards = list(boards)
    known = known | _recorded(rules, known)
    found = [mistake for expression in expressions(boards, rules) for mistake in _of_expression(expression, known)]
    for board in boards:
        found += [f"{board['title']}: {mistake}" for mistake in of_board(board)]
    used = {series for expression in expressions(boards, rules) for series in _families(expression.text, known)}
    unseen = {series.family for series in known.values()} - used
    found += [
        f"{name} is shown by no panel and no rule" for name in sorted(unseen) if not name.startswith(tuple(UNUSED))
    ]
    return found


def expressions(boards: Iterable[Json], rules: Groups) -> Iterator[Expression]:
    """All there are, where they stand."""
    for board in boards:
        title = board["title"]
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Expression(
                    f"{title} / {panel['title']} / {target['refId']}", "panel", target["expr"], target["legendFormat"]
                )
        for annotation in board["annotations"]["list"]:
            yield Expression(
                f"{title} / {annotation['name']}", "annotation", annotation["expr"], annotation["titleFormat"]
            )
        for variable in board["templating"]["list"]:
            if found := re.fullmatch(r"label_values\((.+), (\w+)\)", str(variable.get("definition", ""))):
                yield Expression(f"{title} / ${variable['name']}", "variable", found[1], f"{{{{{found[2]}}}}}")
    for group in rules["groups"]:
        for rule in group["rules"]:
            kind = "record" if "record" in rule else "alert"
            yield Expression(rule[kind], kind, rule["expr"], " ".join(rule.get("annotations", {}).values()))


def _recorded(rules: Groups, known: Catalogue) -> Catalogue:
    """The series that rules make, with the labels of their expressions."""
    names = {}
    for expression in expressions((), rules):
        if expression.kind == "record":
            labels = Reader(expression.text, known).labels
            bounds = next(
                (s.series.bounds for s in Reader(expression.text, known).selected if s.series.bounds), frozenset()
            )
            names[expression.where] = Series(expression.where, False, labels, bounds, recorded=True)
    return names


def _families(text: str, known: Catalogue) -> set[str]:
    return {selected.series.family for selected in Reader(text, known).selected}


def _of_expression(expression: Expression, known: Catalogue) -> Iterator[str]:
    where, kind, text, legend = expression
    selectable = known
    if kind == "variable":  # the values of a label are there whatever is counted
        selectable = {name: replace(series, counts=False) for name, series in known.items()}
    read = Reader(text, selectable)
    yield from (f"{where}: {mistake}" for mistake in read.mistakes)
    if read.mistakes:
        return
    labels = read.labels | ({"__name__"} if kind == "panel" else set())
    for label in re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", legend):
        if label not in labels:
            yield f"{where}: names {label}, which its result does not have"
    for name, matchers, series in read.selected:
        for label, wanted in _whose(kind, series, expression.where):
            if matchers.get(label) != wanted:
                yield f"{where}: {name} is selected without {label}{wanted}"
    if kind == "panel":
        for window in re.findall(r"\[(.*?)\]", text):
            if window != STEP and window not in WINDOWS:
                yield f"{where}: a window of {window}, which no exception names, in place of {STEP}"


def _whose(kind: str, series: Series, where: str) -> Iterator[tuple[str, str]]:
    """The matchers that each selector must have."""
    if kind in ("record", "alert"):
        yield "job", f"={JOB}"
    elif not where.endswith("$job"):  # its values are what one can choose from
        yield "job", "=~$job"
        if not series.recorded and not where.endswith(
            "$instance"
        ):  # a rule sums instances up, and alerts need not have one
            yield "instance", "=~$instance"
