"""What there is to ask Prometheus for: Corral's own catalogue, read from a gateway, and what Prometheus adds to it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.app import running
from gateway.config import Config, DatabaseConfig, MetricsConfig
from gateway.telemetry.families import Family, Reading, exposed

OF_EVERY_SERIES = frozenset({"job", "instance"})
OPEN = {"host", "model", "route", "code", "version", "build", "python"}
"""Labels whose values depend on what runs."""
LE = "le"


@dataclass(frozen=True, slots=True)
class Series:
    """A name that can be selected. ``family``: the metric it belongs to; ``bounds``: of a histogram's ``le``; ``values``: of labels all of
    whose values are known beforehand."""

    family: str
    counts: bool  # only goes up: of use inside rate and its like only
    labels: frozenset[str]
    bounds: frozenset[str] = frozenset()
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    recorded: bool = False  # by a rule, which has summed up the instances


Catalogue = dict[str, Series]

PROMETHEUS = {
    "up": Series("up", counts=False, labels=OF_EVERY_SERIES),
    "scrape_duration_seconds": Series("scrape_duration_seconds", counts=False, labels=OF_EVERY_SERIES),
    "scrape_samples_scraped": Series("scrape_samples_scraped", counts=False, labels=OF_EVERY_SERIES),
    "ALERTS": Series(
        "ALERTS",
        counts=False,
        labels=frozenset({"alertname", "alertstate", "severity", "window", "job", "instance", "host", "model"}),
        values={"alertstate": frozenset({"firing", "pending"})},
        recorded=True,
    ),
}
"""What Prometheus itself says of a scrape job and of alerts."""


def catalogue() -> Catalogue:
    """Every name, of a gateway that has everything switched on."""
    return asyncio.run(_asked())


async def _asked() -> Catalogue:
    given = Config(listen="127.0.0.1:0", database=DatabaseConfig(url="none"), metrics=MetricsConfig(genai_semconv=True))
    async with running(given) as gateway:
        gateway.metrics.expect_host("a host")
        told = {
            sample.name: family
            for family in text_string_to_metric_families(gateway.metrics.render().decode())
            for sample in family.samples
        }
        known = {name: series for family in gateway.metrics.declared() for name, series in _of_family(family, told)}
    rest = {
        name: Series(family.name, family.type == "counter", OF_EVERY_SERIES | _labels(family, name))
        for name, family in told.items()
        if name not in known
    }
    return PROMETHEUS | rest | known


def _of_family(family: Family[Any] | Reading, told: Mapping[str, Metric]) -> Iterator[tuple[str, Series]]:
    name, labels = exposed(family.kind, family.name), OF_EVERY_SERIES | set(family.labelnames)
    if family.kind == "histogram":
        assert isinstance(family, Family)
        bounds = frozenset({*map(str, family.bounds), "+Inf"})
        yield f"{name}_bucket", Series(name, True, labels | {LE}, bounds)
        yield f"{name}_count", Series(name, True, labels)
        yield f"{name}_sum", Series(name, True, labels)
        return
    values = {
        label: frozenset(sample.labels[label] for sample in told[name].samples)
        for label in family.labelnames
        if name in told and label not in OPEN
    }
    yield name, Series(name, family.kind == "counter", labels, values=values)


def _labels(family: Metric, name: str) -> set[str]:
    return {label for sample in family.samples if sample.name == name for label in sample.labels}
