"""Pictures of numbers: functions of what is already summed up, and of the reader's language. Plotly is loaded with the first one, so that other pages stay fast.

Colours are those of the theme (``theme="streamlit"``), which follow light and dark; no figure has more than a few hundred points.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dashboard.i18n import separators

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_PIXELS = 34
HEIGHT_PIXELS, LEGEND_PIXELS = 300, 18
DAY_SECONDS = 86400
CONFIG = {"displayModeBar": False}
MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}
OUTCOMES = {
    "ok": "#2f7d6b",
    "cancelled": "#8a929c",
    "client_error": "#c2a030",
    "timeout": "#c9772b",
    "rejected": "#4a6fa5",
    "no_host": "#7a6bb0",
    "upstream_error": "#a3475b",
    "gateway_error": "#b0589a",
}
"""Each outcome has its colour wherever it is shown; they are the theme's."""


def _figure(**layout: Any) -> "Figure":
    from plotly.graph_objects import Figure  # noqa: PLC0415 - a second of loading that only charts are worth

    legend = {
        "orientation": "h",
        "yanchor": "bottom",
        "y": 1.0,
        "x": 0.0,
    }  # on top: below it would meet the axis where there is little room
    usual = {
        "height": HEIGHT_PIXELS,
        "margin": MARGIN,
        "legend": legend,
        "separators": separators(),
        "uirevision": "same",
    }
    return Figure(layout=usual | layout)


def costs(hosts: list[str], parts: dict[str, list[float]], unit: str) -> "Figure":
    """A bar for each host, of the seconds that each part costs; the cheapest on top."""
    figure = _figure(
        barmode="relative",
        height=120 + ROW_PIXELS * len(hosts),
        showlegend=True,
        yaxis={"autorange": "reversed", "type": "category"},
        xaxis={"title": {"text": unit}},
    )
    for name, values in parts.items():
        if any(values):
            figure.add_bar(y=hosts, x=values, name=name, orientation="h")
    return figure


def _times(at: list[datetime]) -> dict[str, Any]:
    """The axis: no names of months, which would be English."""
    long = len(at) > 1 and (at[-1] - at[0]).total_seconds() > 1.5 * DAY_SECONDS
    return {"tickformat": "%d.%m" if long else "%H:%M", "hoverformat": "%d.%m %H:%M"}


def bars(
    at: list[datetime], parts: Mapping[str, Sequence[float | None]], unit: str, colors: dict[str, str] | None = None
) -> "Figure":
    """Bars on top of each other, one stack for each point of time; parts that are nothing are left out."""
    some = {name: values for name, values in parts.items() if any(values)}
    figure = _figure(
        height=HEIGHT_PIXELS + LEGEND_PIXELS * max(0, len(some) - 3),
        barmode="stack",
        bargap=0.1,
        xaxis=_times(at),
        yaxis={"title": {"text": unit}, "rangemode": "tozero"},
    )
    for name, values in some.items():
        figure.add_bar(x=at, y=values, name=name, marker_color=(colors or {}).get(name), marker_line_width=0)
    return figure


def lines(at: list[datetime], series: Mapping[str, Sequence[float | None]], unit: str) -> "Figure":
    """A line for each of the series; a gap where it has no number. What has none at all is left out."""
    figure = _figure(
        xaxis=_times(at), yaxis={"title": {"text": unit}, "rangemode": "tozero"}, hovermode="x unified", showlegend=True
    )
    for name, values in series.items():
        if all(value is None for value in values):
            continue
        figure.add_scatter(x=at, y=values, name=name, mode="lines+markers", marker_size=4, line_width=2)
    return figure


def heat(columns: list[str], rows: list[str], cells: dict[tuple[str, str], float], unit: str) -> "Figure":
    """A number for each (row, column); empty where there is none. Colours begin at 0: what differs little looks much the same."""
    figure = _figure(
        height=max(HEIGHT_PIXELS, 80 + ROW_PIXELS * len(rows)),
        xaxis={"type": "category", "side": "top"},
        yaxis={"type": "category", "autorange": "reversed"},
    )
    figure.add_heatmap(
        x=columns,
        y=rows,
        z=[[cells.get((row, column)) for column in columns] for row in rows],
        texttemplate="%{z:.0f}",
        hovertemplate=f"%{{y}} · %{{x}}: %{{z:.1f}} {unit}<extra></extra>",
        hoverongaps=False,
        zmin=0,
        zmax=max(cells.values()),
        showscale=False,
        xgap=2,
        ygap=2,
    )
    return figure
