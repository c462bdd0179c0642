"""Dashboards: variables, annotations, links between them and to kept traces, and where each panel lies."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from grafana.panels import SOURCE, Json
from grafana.queries import FIRING, of, recorded

WIDE, HALF, THIRD, QUARTER, EIGHTH = 24, 12, 8, 6, 3
TALL, FLAT = 8, 4
TRACES = "tempo"
"""The uid of the data source that has the traces (grafana/provisioning)."""


class Placed(NamedTuple):
    """A panel's size on a grid 24 wide."""

    panel: Json
    width: int = THIRD
    height: int = TALL


class Row(NamedTuple):
    """A heading and what stands below it, from left to right, line by line."""

    title: str
    placed: Sequence[Placed]


def board(name: str, title: str, description: str, rows: Sequence[Row], variables: Sequence[Json] = ()) -> Json:
    """A dashboard. ``name`` makes its uid; ``variables`` come after those that all have."""
    return {
        "uid": f"corral-{name}",
        "title": f"Corral / {title}",
        "description": description,
        "tags": ["corral"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "liveNow": False,
        "links": _links(),
        "templating": {"list": [_source(), _variable("job", "Job", "corral_build_info"), _instances(), *variables]},
        "annotations": {"list": _annotations()},
        "panels": _laid_out(rows),
    }


def models() -> Json:
    """The variable for models: those that there were requests for."""
    return _variable("model", "Model", of("corral_requests_total"))


def hosts() -> Json:
    """The variable for hosts."""
    return _variable("host", "Host", of("corral_host_up"))


def traces(title: str, traceql: str) -> Json:
    """A link to the kept traces of the time that is shown. ``traceql`` may name a series' labels."""
    pane: Json = {
        "datasource": TRACES,
        "queries": [
            {
                "refId": "A",
                "datasource": {"type": "tempo", "uid": TRACES},
                "queryType": "traceql",
                "query": traceql,
                "limit": 50,
            }
        ],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = quote(json.dumps({"corral": pane}, separators=(",", ":")), safe="${}")
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={panes}&orgId=1", "targetBlank": True}


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    panels: list[Json] = []
    below = 0
    for row in rows:
        panels.append(
            {"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _at(0, below, WIDE, 1)}
        )
        below += 1
        right = lowest = 0
        for panel, width, height in row.placed:
            if right + width > WIDE:
                below, right, lowest = below + lowest, 0, 0
            panels.append(panel | {"gridPos": _at(right, below, width, height)})
            right, lowest = right + width, max(lowest, height)
        below += lowest
    return [{"id": number, **panel} for number, panel in enumerate(panels, start=1)]


def _at(x: int, y: int, w: int, h: int) -> Json:
    return {"x": x, "y": y, "w": w, "h": h}


def _source() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _instances() -> Json:
    return _variable("instance", "Instance", 'corral_build_info{job=~"$job"}')


def _variable(name: str, label: str, series: str) -> Json:
    query = f"label_values({series}, {name})"
    everything: dict[str, Any] = {"text": ["All"], "value": ["$__all"]}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": f"{name}-values"},
        "definition": query,
        "current": everything,
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "hide": 0,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }


def _annotations() -> list[Json]:
    restarts = f"changes({of('process_start_time_seconds')}[$__rate_interval]) > 0"
    reloads = f"changes({of('corral_config_last_reload_success_timestamp_seconds')}[$__rate_interval]) > 0"
    return [
        _annotation("Alerts", recorded("ALERTS", FIRING), "{{alertname}} {{host}}", "red", show=True),
        _annotation("Restarts", restarts, "{{instance}} started", "purple", show=True),
        _annotation("New configuration", reloads, "{{instance}} took a new configuration", "blue", show=False),
    ]


def _annotation(name: str, expr: str, title: str, color: str, *, show: bool) -> Json:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": show,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "titleFormat": title,
        "useValueForTime": False,
    }


def _links() -> list[Json]:
    return [
        {
            "title": "Corral",
            "type": "dashboards",
            "tags": ["corral"],
            "asDropdown": False,
            "icon": "dashboard",
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "tooltip": "",
            "url": "",
        }
    ]
