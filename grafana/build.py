"""Writes grafana/out from what this package says: ``python -m grafana.build``; ``--check`` fails where a file is stale or wrong;
``--runbooks URL`` prints the rules with their runbooks there, and writes nothing.

Wrong is what ``checks.py`` and ``lint.py`` find: a metric, label or bucket that Corral does not have, a panel without a unit, and so on.
"""

import json
import sys
from pathlib import Path

from grafana.checks import mistakes
from grafana.dashboards import corral, fleet, hosts, models, slo
from grafana.known import catalogue
from grafana.panels import Json
from grafana.rules.file import as_yaml, elsewhere, groups

OUT = Path(__file__).parent / "out"


def boards() -> dict[str, Json]:
    """Every dashboard, by the name of its file."""
    return {
        f"{module.__name__.rpartition('.')[2]}.json": module.board() for module in (fleet, models, hosts, slo, corral)
    }


def files() -> dict[str, str]:
    """Every file of grafana/out and what is in it."""
    dashboards = {name: json.dumps(board, indent=2, ensure_ascii=False) + "\n" for name, board in boards().items()}
    return dashboards | {"rules.yml": as_yaml(groups())}


def stale(folder: Path) -> list[str]:
    """The files that are not as they would be written, and those that would not."""
    given = files()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("[!.]*")}
    return sorted(name for name in given | there if given.get(name) != there.get(name))


def main() -> int:
    """Write the files, or with --check tell what is amiss (exit 1), or with --runbooks print the rules."""
    if sys.argv[1:2] == ["--runbooks"] and len(sys.argv) == 3:
        print(as_yaml(elsewhere(groups(), sys.argv[2])), end="")
        return 0
    amiss = mistakes(boards().values(), groups(), catalogue())
    if "--check" in sys.argv:
        amiss += [f"stale: grafana/out/{name}; run: python -m grafana.build" for name in stale(OUT)]
    else:
        OUT.mkdir(exist_ok=True)
        for name, text in files().items():
            (OUT / name).write_text(text, encoding="utf-8")
    for line in amiss:
        print(line, file=sys.stderr)
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main())
