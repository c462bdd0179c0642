"""What is wrong with a dashboard, but for its expressions.

The rules are those of Grafana's dashboard-linter, as far as they concern ours; that a key means something to Grafana is told by its own
SDK: what does not come back from there, Grafana would ignore.
"""

import json
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.panels import Json

register_default_plugins()

VARIABLES = {
    "datasource": ("datasource", "Data source"),
    "job": ("query", "Job"),
    "instance": ("query", "Instance"),
}
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}


def of_board(board: Json) -> Iterator[str]:
    """Everything that is wrong, but for its expressions."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    yield from _of_variables({each["name"]: each for each in board["templating"]["list"]})
    for panel in panels:
        yield from (f"{panel.get('title')}: {mistake}" for mistake in _of_panel(panel))
    for name in ("id", "title"):
        given = [panel.get(name) for panel in (board["panels"] if name == "id" else panels)]
        yield from (
            f"two panels have the {name} {each}" for each in sorted({str(one) for one in given if given.count(one) > 1})
        )
    yield from _overlaps(board["panels"])
    if board.get("editable") is not False:
        yield "can be edited, and what was edited is lost with the next version"
    if not str(board.get("uid", "")).startswith("corral-") or "id" in board or "__inputs" in board:
        yield "needs a fixed uid, and neither id nor __inputs"
    yield from (f"Grafana knows nothing of {path}" for path in unknown_to_grafana(board))


def _of_variables(variables: dict[str, Json]) -> Iterator[str]:
    for name, (kind, label) in VARIABLES.items():
        if (variables.get(name, {}).get("type"), variables.get(name, {}).get("label")) != (kind, label):
            yield f"needs a variable {name} of type {kind}, labelled {label}"
    for name, variable in variables.items():
        if variable["type"] != "query":
            continue
        wanted = {"multi": True, "includeAll": True, "allValue": ".+", "refresh": 2}
        if any(variable.get(key) != value for key, value in wanted.items()):
            yield f"the variable {name} needs {wanted}"
        if variable["datasource"].get("uid") != "$datasource":
            yield f"the variable {name} asks another data source than $datasource"


def _of_panel(panel: Json) -> Iterator[str]:
    for what in ("title", "description", "targets"):
        if not panel.get(what):
            yield f"has no {what}"
    sources = [panel.get("datasource", {}), *(target.get("datasource", {}) for target in panel.get("targets", ()))]
    if any(source.get("uid") != "$datasource" for source in sources):
        yield "asks another data source than $datasource"
    refs = [target["refId"] for target in panel.get("targets", ())]
    if len(set(refs)) < len(refs):
        yield "two queries have one refId"
    config = panel.get("fieldConfig", {})
    own = [
        each["value"]
        for override in config.get("overrides", ())
        for each in override["properties"]
        if each["id"] == "unit"
    ]
    unit = config.get("defaults", {}).get("unit")
    if not unit:
        yield "has no unit"
    yield from (f"{each} is no unit of Grafana's" for each in (unit, *own) if each and each not in UNITS)


def _overlaps(panels: list[Json]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] + at["w"] > 24:
            yield f"{panel['title']} sticks out on the right"
        cells = [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        if others := {taken[cell] for cell in cells if cell in taken}:
            yield f"{panel['title']} lies over {', '.join(sorted(others))}"
        taken |= dict.fromkeys(cells, str(panel["title"]))


def unknown_to_grafana(board: Json) -> list[str]:
    """The keys, by their paths, that do not survive being read and written by Grafana's SDK."""
    back = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    return list(_lost(board, back, ""))


def _lost(given: Any, back: Any, path: str) -> Iterator[str]:
    match given:
        case dict():
            for key, value in given.items():
                if not isinstance(back, dict) or key not in back:
                    if value is not None:
                        yield f"{path}.{key}".lstrip(".")
                else:
                    yield from _lost(value, back[key], f"{path}.{key}")
        case list():
            if not isinstance(back, list) or len(back) != len(given):
                yield path.lstrip(".")
            else:
                for index, value in enumerate(given):
                    yield from _lost(value, back[index], f"{path}[{index}]")
