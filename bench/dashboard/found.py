"""What was measured, as it is judged and told."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.routing.figures import quantile


class Found(NamedTuple):
    """One row: its values, in ``unit``, and the most that its goal allows of one of them: ``p95``, ``median`` or ``most``; None: it has no goal."""

    what: str
    values: Sequence[float]
    unit: str
    which: str
    limit: float | None

    @property
    def value(self) -> float:
        """That which is judged."""
        return of(self.values, self.which)

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None without one."""
        return None if self.limit is None else self.value <= self.limit


def of(values: Sequence[float], which: str) -> float:
    """One of many: ``median``, ``p95`` or ``most``."""
    return quantile(sorted(values), {"median": 0.5, "p95": 0.95, "most": 1.0}[which])


def table(rows: Sequence[Found]) -> str:
    """Markdown."""
    lines = ["| what | n | median | p95 | most | goal | verdict |", "| --- | --: | --: | --: | --: | --- | --- |"]
    for row in rows:
        told = " | ".join(f"{of(row.values, which):,.0f} {row.unit}" for which in ("median", "p95", "most"))
        goal = f"{row.which} ≤ {row.limit:,.0f} {row.unit}" if row.limit is not None else ""
        verdict = {True: "met", False: "**missed**", None: ""}[row.met]
        lines.append(f"| {row.what} | {len(row.values)} | {told} | {goal} | {verdict} |")
    return "\n".join(lines)
