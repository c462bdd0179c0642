"""A rule of Prometheus: a series that is worked out ahead, or an alert."""

from typing import Any, NamedTuple

from grafana.queries import ruled

RUNBOOKS = "docs/operations.md"
"""Where runbooks are, a heading for each alert. ``python -m grafana.build --runbooks URL`` prints the rules with another address."""

PAGE, TICKET, INFO = "page", "ticket", "info"
"""For what hurts callers now; for what will, or what one host does; for what is good to know."""


class Recording(NamedTuple):
    """A series that is worked out ahead. Its name is ``level:metric:operations``, the level being the labels that are left."""

    record: str
    expr: str

    def as_rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {"record": self.record, "expr": self.expr}


class Alert(NamedTuple):
    """An alert. ``wait``: how long it must be so; ``keep``: how long it fires after it was last so; ``window``: tells
    those of one name apart."""

    name: str
    severity: str
    wait: str
    expr: str
    summary: str
    description: str
    keep: str = ""
    window: str = ""

    def as_rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr, "for": self.wait}
        if self.keep:
            rule["keep_firing_for"] = self.keep
        runbook = f"{RUNBOOKS}#{self.name.lower()}"
        notes = {"summary": self.summary, "description": self.description, "runbook_url": runbook}
        labels = {"severity": self.severity} | ({"window": self.window} if self.window else {})
        return rule | {"labels": labels, "annotations": notes}


def summed(how: str, by: str, window: str, metric: str, *matchers: str) -> str:
    """The sum of a counter's ``rate`` or ``increase`` over a window, by some labels."""
    return f"sum by ({by}) ({how}({ruled(metric, *matchers)}[{window}]))"
