"""What is wrong with an expression, told from its syntax tree and the catalogue.

Beside names, labels, values and bounds that do not exist: a counter outside of ``rate`` and its like, a gauge inside, a quantile without
``le``, labels that an aggregation or a match wants and that are not there, sides of an operator that can never match.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser as tree

from grafana.known import LE, Catalogue, Series

Labels = frozenset[str]
NONE: Labels = frozenset()

OVER_COUNTERS = {"rate", "increase", "irate", "resets"}
OVER_GAUGES = {"changes", "avg_over_time", "max_over_time", "min_over_time", "delta", "deriv"}
WITHOUT_LABELS = {"vector", "scalar", "time"}
SETS = {"and", "or", "unless"}


class Mistake(ValueError):
    """What is wrong."""


class Selected(NamedTuple):
    """A selector of an expression."""

    name: str
    matchers: dict[str, str]  # label → operator and value
    series: Series


def parsed(text: str) -> Any:
    """The tree of an expression in which Grafana's variables still stand; Mistake where it is none."""
    try:
        return tree.parse(re.sub(r"\$__(rate_interval|interval|range)", "5m", text))
    except ValueError as error:
        raise Mistake(f"is not PromQL: {error}") from None


class Reader:
    """Reads one expression. ``selected`` is what it selects, ``mistakes`` what is wrong, ``labels`` what its result has."""

    def __init__(self, text: str, known: Catalogue) -> None:
        self.selected: list[Selected] = []
        self.mistakes: list[str] = []
        self._known = known
        try:
            self.labels = self._read(parsed(text), "")
        except Mistake as mistake:
            self.labels = NONE
            self.mistakes.append(str(mistake))

    def _read(self, node: Any, function: str) -> Labels:
        """The labels of a node's result. ``function`` is what a range is given to."""
        match node:
            case tree.VectorSelector():
                return self._select(node, function)
            case tree.MatrixSelector():
                return self._select(node.vector_selector, function)
            case tree.ParenExpr() | tree.UnaryExpr() | tree.SubqueryExpr():
                return self._read(node.expr, function)
            case tree.Call():
                return self._call(node)
            case tree.AggregateExpr():
                return self._aggregate(node)
            case tree.BinaryExpr():
                return self._binary(node)
        return NONE

    def _select(self, node: Any, function: str) -> Labels:
        if node.name not in self._known:
            raise Mistake(f"no metric {node.name}")
        series = self._known[node.name]
        if series.counts and function not in OVER_COUNTERS:
            self.mistakes.append(f"{node.name} is a counter: it says something inside rate or increase only")
        if not series.counts and function in OVER_COUNTERS:
            self.mistakes.append(f"{node.name} is no counter: {function} makes nothing of it")
        matchers = {}
        for matcher in node.matchers.matchers:
            matchers[matcher.name] = f"{_OPERATORS[str(matcher.op)]}{matcher.value}"
            self.mistakes += _matched(node.name, series, matcher)
        self.selected.append(Selected(node.name, matchers, series))
        fixed = {LE} & {matcher.name for matcher in node.matchers.matchers}
        return series.labels - fixed

    def _call(self, node: Any) -> Labels:
        name = node.func.name
        results = [self._read(argument, name) for argument in node.args]
        if name in WITHOUT_LABELS:
            return NONE
        labels = results[-1] if results else NONE
        if name == "histogram_quantile":
            if LE not in labels:
                self.mistakes.append("histogram_quantile of something without le")
            return labels - {LE}
        return labels

    def _aggregate(self, node: Any) -> Labels:
        inner = self._read(node.expr, "")
        if str(node.op) in ("topk", "bottomk"):
            return inner
        if node.modifier is None:
            return NONE
        given = frozenset(node.modifier.labels)
        if node.modifier.type == tree.AggModifierType.Without:
            return inner - given
        self._must_have(given, inner, f"{node.op} by")
        return given

    def _binary(self, node: Any) -> Labels:
        left, right = self._read(node.lhs, ""), self._read(node.rhs, "")
        if _is_number(node.lhs) or _is_number(node.rhs):
            return left | right
        op, modifier = str(node.op), node.modifier
        matching = modifier.matching if modifier else None
        if op == "or":
            return left | right
        if matching is None:
            if left != right and op not in SETS:
                self.mistakes.append(f"{op} between {_said(left)} and {_said(right)} never matches")
            return left
        on = frozenset(matching.labels)
        if matching.type == tree.LabelModifierType.Include:
            self._must_have(on, left & right, f"{op} on")
        if op in SETS or modifier.card == tree.VectorMatchCardinality.ManyToOne:
            return left | frozenset(modifier.group_labels or ())
        return on if matching.type == tree.LabelModifierType.Include else left - on

    def _must_have(self, wanted: Labels, there: Labels, what: str) -> None:
        if missing := wanted - there:
            self.mistakes.append(f"{what} {_said(missing)}: there is only {_said(there)}")


_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}


def _matched(name: str, series: Series, matcher: Any) -> Iterator[str]:
    label, value = matcher.name, matcher.value
    if label not in series.labels:
        yield f"{name} has no label {label}"
    elif label == LE and value not in series.bounds:
        yield f"{name} has no bound {value}: write it as it is told, one of {', '.join(sorted(series.bounds, key=float))}"
    elif "$" not in value and label in series.values:
        there = series.values[label]
        asked = value.split("|") if _OPERATORS[str(matcher.op)].endswith("~") else [value]
        for each in asked:
            if not any(re.fullmatch(each, one) for one in there):
                yield f"{name} has no {label} {each}: {', '.join(sorted(there))}"


def _is_number(node: Any) -> bool:
    match node:
        case tree.NumberLiteral():
            return True
        case tree.ParenExpr() | tree.UnaryExpr():
            return _is_number(node.expr)
        case tree.BinaryExpr():
            return _is_number(node.lhs) and _is_number(node.rhs)
        case tree.Call():
            return bool(node.func.name in ("time", "scalar"))
    return False


def _said(labels: Labels) -> str:
    return "{" + ", ".join(sorted(labels)) + "}"
