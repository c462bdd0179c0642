"""Panels as Grafana's JSON wants them: one function for each kind. Where they lie on the board is board.py's affair.

Every panel has a title, a description that says what to do about what one sees, and a unit.
"""

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from grafana.queries import quantile

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "$datasource"}
GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"
LINE = {
    "drawStyle": "line",
    "lineWidth": 1,
    "fillOpacity": 8,
    "showPoints": "never",
    "spanNulls": False,
}


class Query(NamedTuple):
    """One expression of a panel. ``unit``: where it differs from the panel's; ``exemplar``: show the traces that are kept."""

    expr: str
    legend: str = ""
    exemplar: bool = False
    unit: str = ""


def split(word: Callable[..., str], /, *what: Any, by: str, exemplar: bool = False, **more: str) -> Query:
    """A line for each value of the labels ``by``, named by them. ``word``: one of queries.py, which is given all the rest."""
    return Query(word(*what, by=by, **more), " ".join(f"{{{{{label}}}}}" for label in by.split(", ")), exemplar)


def percentiles(
    histogram: str, *matchers: str, at: Sequence[float] = (0.5, 0.95, 0.99), exemplar: bool = False, **more: str
) -> list[Query]:
    """A line for each quantile, named as people name them."""
    return [Query(quantile(q, histogram, *matchers, **more), f"p{q * 100:g}", exemplar) for q in at]


def thresholds(*steps: tuple[float, str], base: str = GREEN) -> Json:
    """Colours from values on."""
    return {
        "mode": "absolute",
        "steps": [{"value": None, "color": base}, *({"value": at, "color": to} for at, to in steps)],
    }


def mapped(words: Mapping[int, tuple[str, str]]) -> list[Json]:
    """Numbers shown as words in a colour."""
    options = {
        str(number): {"text": text, "color": color, "index": index}
        for index, (number, (text, color)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    axis: str = "",
    top: float | None = None,
    limits: Json | None = None,
    links: Sequence[Json] = (),
) -> Json:
    """Values over time. ``axis``: what is counted where the unit does not say; ``limits``: lines to stay under."""
    custom: Json = LINE | {"axisLabel": axis}
    if stacked:
        custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 30}
    if limits:
        custom |= {"thresholdsStyle": {"mode": "dashed"}}
    defaults: Json = {"unit": unit, "min": 0, "custom": custom, "color": {"mode": "palette-classic"}}
    if top is not None:
        defaults["max"] = top
    if limits:
        defaults["thresholds"] = limits
    if links:
        defaults["links"] = list(links)
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, queries, defaults, options, _own_units(queries))


def stat(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    limits: Json | None = None,
    decimals: int | None = None,
    words: Mapping[int, tuple[str, str]] | None = None,
) -> Json:
    """One number, now, with its course behind it."""
    defaults: Json = {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": limits or thresholds(base=BLUE)}
    if decimals is not None:
        defaults["decimals"] = decimals
    if words:
        defaults["mappings"] = mapped(words)
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
        "justifyMode": "auto",
        "orientation": "auto",
    }
    return _panel("stat", title, description, [query], defaults, options)


def timeline(title: str, description: str, query: Query, words: Mapping[int, tuple[str, str]]) -> Json:
    """States over time, as coloured bars."""
    defaults = {
        "unit": "none",
        "color": {"mode": "thresholds"},
        "thresholds": thresholds(base=GREY),
        "mappings": mapped(words),
        "custom": {"fillOpacity": 75, "lineWidth": 0},
    }
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, description, [query], defaults, options)


def heatmap(title: str, description: str, unit: str, query: Query) -> Json:
    """A histogram over time; exemplars are points in it."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "exemplars": {"color": "rgba(31,120,193,0.9)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    panel = _panel("heatmap", title, description, [query], {"unit": unit}, options)
    panel["targets"][0]["format"] = "heatmap"
    return panel


def table(
    title: str, description: str, columns: Mapping[str, Query], labels: Mapping[str, str], facts: str = ""
) -> Json:
    """A row for each set of labels, now; a column for each of ``labels`` (label → heading), then for each query (heading → query).

    A query's ``unit`` is its column's. ``facts`` selects what has more labels to tell, and no value.
    """
    queries = [*columns.values(), *([Query(facts)] if facts else [])]
    values = [f"Value #{ref}" for ref, _ in zip(ascii_uppercase, queries, strict=False)]
    names = {**labels, **dict(zip(values, columns, strict=False))}
    hidden = dict.fromkeys(["Time", *values[len(columns) :]], True)
    overrides = [_override(heading, query.unit) for heading, query in columns.items()]
    defaults = {"unit": "none", "custom": {"align": "auto", "filterable": True}}
    options = {"showHeader": True, "cellHeight": "sm"}
    panel = _panel("table", title, description, queries, defaults, options, overrides)
    for target in panel["targets"]:
        target |= {"format": "table", "instant": True, "range": False}
    order = {name: index for index, name in enumerate(names)}
    organize = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    panel["transformations"] = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    return panel


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[Query],
    defaults: Json,
    options: Json,
    overrides: Sequence[Json] = (),
) -> Json:
    targets = [
        {
            "refId": ref,
            "datasource": SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "range": True,
            "instant": False,
            "exemplar": query.exemplar,
            "editorMode": "code",
            "format": "time_series",
        }
        for ref, query in zip(ascii_uppercase, queries, strict=False)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
    }


def _own_units(queries: Sequence[Query]) -> list[Json]:
    return [_override(query.legend, query.unit) for query in queries if query.unit]


def _override(name: str, unit: str) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
