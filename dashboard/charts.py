"""Pictures of numbers: pure functions of what is already summed up. Plotly is loaded with the first one, so that other pages stay fast.

Colours are those of the theme (``theme="streamlit"``), which follow light and dark; no figure has more than a few hundred points.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_PIXELS = 34
MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}


def _figure(**layout: Any) -> "Figure":
    from plotly.graph_objects import Figure  # noqa: PLC0415 - a second of loading that only charts are worth

    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0.0}
    usual = {"margin": MARGIN, "legend": legend, "uirevision": "same", "modebar": {"remove": ["select2d", "lasso2d"]}}
    return Figure(layout=usual | layout)


def costs(hosts: list[str], parts: dict[str, list[float]], unit: str) -> "Figure":
    """A bar for each host, of the seconds that each part costs; the cheapest on top."""
    figure = _figure(
        barmode="relative",
        height=90 + ROW_PIXELS * len(hosts),
        yaxis={"autorange": "reversed", "type": "category"},
        xaxis={"title": {"text": unit}},
    )
    for name, values in parts.items():
        if any(values):
            figure.add_bar(y=hosts, x=values, name=name, orientation="h")
    return figure
