"""Metric families without locks: counters, histograms, gauges read at scrape time, and their text exposition.

Why not prometheus-client's own types here: they cost ten times as much per update and forty times as much per scrape, and a scrape
on the event loop stalls every stream (docs/decisions/0003). Everything runs in the loop's thread, so plain additions are safe. The
names and the rules are prometheus-client's; the tests hold our output against its parser.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Counter:
    """Only goes up."""

    __slots__ = ("_prefix", "value")

    def __init__(self, family: "Family[Counter]", labels: tuple[str, ...]) -> None:
        self.value = 0.0
        self._prefix = f"{family.name}_total{_braced(family.labelnames, labels)} "

    def inc(self, amount: float = 1.0) -> None:
        """Add ``amount``."""
        self.value += amount

    def lines(self) -> Iterator[str]:
        """The sample."""
        yield f"{self._prefix}{self.value}\n"


class Histogram:
    """Counts in buckets by upper bound (inclusive), and their sum."""

    __slots__ = ("_bounds", "_labels", "_prefixes", "counts", "sum")

    def __init__(self, family: "Family[Histogram]", labels: tuple[str, ...]) -> None:
        self._bounds = family.bounds
        self.counts = [0] * (len(family.bounds) + 1)
        self.sum = 0.0
        names = (*family.labelnames, "le")
        bounds = (*map(str, family.bounds), "+Inf")
        self._prefixes = [f"{family.name}_bucket{_braced(names, (*labels, bound))} " for bound in bounds]
        self._labels = (
            f"{family.name}_sum{_braced(family.labelnames, labels)} ",
            f"{family.name}_count{_braced(family.labelnames, labels)} ",
        )

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def lines(self) -> Iterator[str]:
        """The samples: cumulative buckets, sum, count."""
        total = 0
        for prefix, count in zip(self._prefixes, self.counts, strict=True):
            total += count
            yield f"{prefix}{total}.0\n"
        yield f"{self._labels[0]}{self.sum}\n"
        yield f"{self._labels[1]}{total}.0\n"


class _Child(Protocol):
    def lines(self) -> Iterator[str]: ...


C = TypeVar("C", bound=_Child)


class Family(Generic[C]):
    """One metric name with all its label values. ``name`` without ``_total``."""

    def __init__(
        self,
        make: Callable[["Family[C]", tuple[str, ...]], C],
        kind: str,
        name: str,
        text: str,
        labelnames: tuple[str, ...],
        bounds: tuple[float, ...] = (),
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
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

    def lines(self) -> Iterator[str]:
        """Header and samples."""
        name = f"{self.name}_total" if self.kind == "counter" else self.name
        yield f"# HELP {name} {self.text}\n# TYPE {name} {self.kind}\n"
        for child in self._children.values():
            yield from child.lines()


def counter(name: str, text: str, *labelnames: str) -> Family[Counter]:
    """A family of counters."""
    return Family(Counter, "counter", name, text, labelnames)


def histogram(name: str, text: str, bounds: tuple[float, ...], *labelnames: str) -> Family[Histogram]:
    """A family of histograms. ``bounds`` ascend, without infinity."""
    assert all(low < high for low, high in zip(bounds, (*bounds[1:], inf), strict=True))
    return Family(Histogram, "histogram", name, text, labelnames, bounds)


def gauge_lines(
    name: str, text: str, labelnames: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]
) -> Iterator[str]:
    """A gauge whose values are read now."""
    yield f"# HELP {name} {text}\n# TYPE {name} gauge\n"
    for labels, value in rows:
        yield f"{name}{_braced(labelnames, labels)} {float(value)}\n"


def _braced(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return (
        "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)) + "}"
    )
