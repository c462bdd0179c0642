"""The file of rules that Prometheus loads."""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from grafana.rules.fleet import FLEET, RATIOS
from grafana.rules.gateway import GATEWAY
from grafana.rules.models import MODELS
from grafana.rules.objectives import BUDGETS, OBJECTIVES
from grafana.rules.rule import RUNBOOKS, Alert, Recording

Groups = dict[str, list[dict[str, Any]]]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RANGE = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])")
_HEADING = "# Written by python -m grafana.build. Change grafana/rules instead.\n"


def groups() -> Groups:
    """Every rule. What is worked out ahead stands before the alerts that read it."""
    parts: tuple[tuple[str, Sequence[Recording | Alert]], ...] = (
        ("objectives", [*OBJECTIVES, *BUDGETS]),
        ("fleet", [*RATIOS, *FLEET]),
        ("models", MODELS),
        ("gateway", GATEWAY),
    )
    return {
        "groups": [{"name": f"corral-{name}", "rules": [rule.as_rule() for rule in rules]} for name, rules in parts]
    }


def shrunk(given: Groups, times: int) -> Groups:
    """The same rules in a hurry: every window and every ``for`` is that much shorter. For tests, which cannot wait an hour."""

    def shorter(found: re.Match[str]) -> str:
        return f"{int(found[1]) * _SECONDS[found[2]] * 1000 // times}ms"

    def hurried(rule: dict[str, Any]) -> dict[str, Any]:
        waits = {
            key: re.sub(r"^(\d+)([smhd])$", shorter, rule[key]) for key in ("for", "keep_firing_for") if key in rule
        }
        return rule | {"expr": _RANGE.sub(shorter, rule["expr"])} | waits

    return {"groups": [group | {"rules": [hurried(rule) for rule in group["rules"]]} for group in given["groups"]]}


def elsewhere(given: Groups, url: str) -> Groups:
    """The same rules with their runbooks at this address, each a ``#`` and the alert's name behind it."""

    def moved(rule: dict[str, Any]) -> dict[str, Any]:
        if "alert" not in rule:
            return rule
        notes = rule["annotations"]
        return rule | {"annotations": notes | {"runbook_url": url + notes["runbook_url"].removeprefix(RUNBOOKS)}}

    return {"groups": [group | {"rules": [moved(rule) for rule in group["rules"]]} for group in given["groups"]]}


def as_yaml(given: Groups) -> str:
    """As Prometheus reads it."""
    return _HEADING + yaml.safe_dump(given, sort_keys=False, width=2000, allow_unicode=True)
