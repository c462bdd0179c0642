"""Metric families without locks: counters, histograms, and values read at scrape time; as text and as OpenMetrics.

Why not prometheus-client's own types here: they cost ten times as much per update and forty times as much per scrape, and a scrape
on the event loop stalls every stream (docs/decisions/0003). Everything runs in the loop's thread, so plain additions are safe. The
names and the rules are prometheus-client's; the tests hold our output against its parsers.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from math import inf
from typing import Final, Generic, Protocol, TypeVar

_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_UNITS: Final = ("seconds", "bytes", "tokens")
Rows = Iterable[tuple[tuple[str, ...], float]]


class Counter:
    """Only goes up."""

    __slots__ = ("_prefix", "value")

    def __init__(self, family: "Family[Counter]", labels: tuple[str, ...]) -> None:
        self.value = 0.0
        self._prefix = f"{family.name}_total{_braced(family.labelnames, labels)} "

    def inc(self, amount: float = 1.0) -> None:
        """Add ``amount``."""
        self.value += amount

    def text(self, openmetrics: bool) -> str:  # noqa: ARG002 - the sample is the same in both formats
        """The sample."""
        return f"{self._prefix}{self.value}\n"


class Histogram:
    """Counts in buckets by upper bound (inclusive), their sum, and of each bucket the last exemplar there was.

    All lines of one are a single template: putting the numbers in is one call, however many buckets there are.
    """

    __slots__ = ("_bounds", "_exemplars", "_template", "counts", "sum")

    def __init__(self, family: "Family[Histogram]", labels: tuple[str, ...]) -> None:
        self._bounds = family.bounds
        self.counts = [0] * (len(family.bounds) + 1)
        self.sum = 0.0
        self._exemplars: dict[int, str] = {}
        names = (*family.labelnames, "le")
        bounds = (*map(str, family.bounds), "+Inf")
        plain = _braced(family.labelnames, labels)
        lines = [f"{family.name}_bucket{_braced(names, (*labels, bound))}" for bound in bounds]
        lines = [line.replace("%", "%%") + " %d.0\n" for line in (*lines, f"{family.name}_count{plain}")]
        lines.insert(-1, f"{family.name}_sum{plain}".replace("%", "%%") + " %s\n")
        self._template = "".join(lines)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def exemplify(self, value: float, trace_id: str, at: float) -> None:
        """Show the trace of a value that was observed. ``at``: Unix seconds."""
        labels = _braced(("trace_id",), (trace_id,))
        self._exemplars[bisect_left(self._bounds, value)] = f" # {labels} {value} {at:.3f}"

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def text(self, openmetrics: bool) -> str:
        """The samples: cumulative buckets, sum, count. Exemplars only in OpenMetrics: the older format has no place for them."""
        totals = tuple(accumulate(self.counts))
        text = self._template % (*totals, self.sum, totals[-1])
        if not (openmetrics and self._exemplars):
            return text
        lines = text.split("\n")
        for index, exemplar in self._exemplars.items():
            lines[index] += exemplar
        return "\n".join(lines)


class _Child(Protocol):
    def text(self, openmetrics: bool) -> str: ...


C = TypeVar("C", bound=_Child)


class Family(Generic[C]):
    """One metric name with all its label values. ``name`` without ``_total``."""

    def __init__(
        self,
        make: Callable[["Family[C]", tuple[str, ...]], C],
        kind: str,
        name: str,
        help_: str,
        labelnames: tuple[str, ...],
        bounds: tuple[float, ...] = (),
    ) -> None:
        self.kind = kind
        self.name = name
        self.help = help_
        self.labelnames = labelnames
        self.bounds = tuple(map(float, bounds))
        self._make = make
        self._children: dict[tuple[str, ...], C] = {}
        if not labelnames:
            self.labels()

    def labels(self, *values: str) -> C:
        """The child for these label values, made on first use. Keep it where it is used often."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.labelnames):
                raise ValueError(f"{self.name} has the labels {self.labelnames}, not {values}")
            child = self._children[values] = self._make(self, values)
        return child

    def children(self) -> dict[tuple[str, ...], C]:
        """All children by label values."""
        return self._children

    def write(self, out: list[str], openmetrics: bool) -> None:
        """Append header and samples."""
        out.append(header(self.kind, self.name, self.help, openmetrics))
        out.extend([child.text(openmetrics) for child in self._children.values()])


class Reading:
    """One metric name whose values are read from the live state, now. ``kind``: gauge or counter; ``name`` without ``_total``."""

    def __init__(self, kind: str, name: str, help_: str, labelnames: tuple[str, ...], rows: Rows) -> None:
        self.kind = kind
        self.name = name
        self.help = help_
        self.labelnames = labelnames
        self._rows = rows

    def write(self, out: list[str], openmetrics: bool) -> None:
        """Append header and samples."""
        out.append(header(self.kind, self.name, self.help, openmetrics))
        name = exposed(self.kind, self.name)
        out.extend([f"{name}{_braced(self.labelnames, labels)} {float(value)}\n" for labels, value in self._rows])


def counter(name: str, help_: str, *labelnames: str) -> Family[Counter]:
    """A family of counters."""
    return Family(Counter, "counter", name, help_, labelnames)


def histogram(name: str, help_: str, bounds: tuple[float, ...], *labelnames: str) -> Family[Histogram]:
    """A family of histograms. ``bounds`` ascend, without infinity."""
    assert all(low < high for low, high in zip(bounds, (*bounds[1:], inf), strict=True))
    return Family(Histogram, "histogram", name, help_, labelnames, bounds)


def unit_of(name: str) -> str:
    """The unit that a family's name ends in; empty if it counts things."""
    return next((unit for unit in _UNITS if name.endswith(f"_{unit}")), "")


def exposed(kind: str, name: str) -> str:
    """The name under which a family's value is asked for."""
    return f"{name}_total" if kind == "counter" else name


def header(kind: str, name: str, help_: str, openmetrics: bool) -> str:
    """The lines before a family's samples."""
    if not openmetrics:
        full = exposed(kind, name)
        return f"# HELP {full} {help_}\n# TYPE {full} {kind}\n"
    unit = unit_of(name)
    return f"# HELP {name} {help_}\n# TYPE {name} {kind}\n" + (f"# UNIT {name} {unit}\n" if unit else "")


def _braced(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return (
        "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)) + "}"
    )
