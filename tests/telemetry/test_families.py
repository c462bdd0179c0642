"""Our own counters and histograms: what they expose is what prometheus-client's would, for all label values."""

from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.families import Counter, Family, Histogram, Reading, counter, histogram, unit_of
from tests.profiles import PROPERTY

BOUNDS = (0.05, 0.5, 1, 2.5, 10)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    """Every sample of an exposition by name and labels, as prometheus-client's parser reads it."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert key(sample) not in found
            found[key(sample)] = sample.value
    return {named: value for named, value in found.items() if not named[0].endswith("_created")}


def key(sample: Any) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A sample's name and labels, in whatever order they came."""
    return sample.name, tuple(sorted(sample.labels.items()))


def text(family: Family[Counter] | Family[Histogram] | Reading, *, openmetrics: bool = False) -> str:
    """What a family exposes."""
    out: list[str] = []
    family.write(out, openmetrics)
    return "".join(out)


def theirs(
    kind: Any, name: str, labels: tuple[str, ...], **more: Any
) -> tuple[Any, prometheus_client.CollectorRegistry]:
    """The same family of prometheus-client, on a registry of its own."""
    registry = prometheus_client.CollectorRegistry()
    return kind(name, "Some text.", labels, registry=registry, **more), registry


# -- the simple cases -----------------------------------------------------------------------------------------------------------------


def test_a_counter() -> None:
    """Is exposed with its help, its type and the suffix ``_total``."""
    family = counter("corral_things", "Things.", "host", "kind")
    family.labels("gpu1", "a").inc()
    family.labels("gpu1", "b").inc(2.5)
    family.labels("gpu1", "a").inc()
    assert text(family) == (
        "# HELP corral_things_total Things.\n"
        "# TYPE corral_things_total counter\n"
        'corral_things_total{host="gpu1",kind="a"} 2.0\n'
        'corral_things_total{host="gpu1",kind="b"} 2.5\n'
    )


def test_a_family_without_labels() -> None:
    """Is there from the beginning, at zero."""
    assert text(counter("corral_things", "Things.")).endswith("\ncorral_things_total 0.0\n")


def test_a_family_with_labels() -> None:
    """Has no sample before its first use, and then one for each use of other labels."""
    family = counter("corral_things", "Things.", "host")
    assert family.children() == {}
    assert family.labels("gpu1") is family.labels("gpu1")
    assert list(family.children()) == [("gpu1",)]


@pytest.mark.parametrize("values", [(), ("a",), ("a", "b", "c")])
def test_the_wrong_number_of_labels(values: tuple[str, ...]) -> None:
    """Is a mistake that is named."""
    with pytest.raises(ValueError, match="corral_things has the labels"):
        counter("corral_things", "Things.", "host", "kind").labels(*values)


HISTOGRAM = """\
# HELP corral_wait_seconds Waiting.
# TYPE corral_wait_seconds histogram
corral_wait_seconds_bucket{le="0.1"} 2.0
corral_wait_seconds_bucket{le="1.0"} 3.0
corral_wait_seconds_bucket{le="+Inf"} 4.0
corral_wait_seconds_sum 7.65
corral_wait_seconds_count 4.0
"""


def test_a_histogram() -> None:
    """Buckets are cumulative, and include their bound."""
    family = histogram("corral_wait_seconds", "Waiting.", (0.1, 1))
    for value in (0.05, 0.1, 0.5, 7.0):
        family.labels().observe(value)
    assert text(family) == HISTOGRAM
    assert (family.labels().count, family.labels().sum) == (4, pytest.approx(7.65))


@pytest.mark.parametrize("bounds", [(1, 0.5), (1, 1), (0.5, float("inf"))])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    """And infinity is not among them."""
    with pytest.raises(AssertionError):
        histogram("corral_wait_seconds", "Waiting.", bounds)


def test_a_gauge() -> None:
    """Is read now; numbers and truth values alike."""
    rows: list[tuple[tuple[str, ...], float]] = [(("gpu1",), True), (("gpu2",), 3), (("gpu3",), 0.5)]
    said = text(Reading("gauge", "corral_up", "Up.", ("host",), rows))
    assert read(said) == {
        ("corral_up", (("host", f"gpu{index}"),)): value for index, value in ((1, 1.0), (2, 3.0), (3, 0.5))
    }
    assert said.startswith("# HELP corral_up Up.\n# TYPE corral_up gauge\n")


# -- against prometheus-client --------------------------------------------------------------------------------------------------------

label = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "\\n", '\\"', "a\\", "{", "}", ",", "=", " ", '"} 1\n', "#", "é", "😀"]
)
pairs = st.tuples(label, label)
amounts = st.floats(0.0, 1e9)


@given(st.lists(st.tuples(pairs, amounts), max_size=20))
@PROPERTY
def test_counters_like_theirs(happened: list[tuple[tuple[str, str], float]]) -> None:
    """Whatever is counted under whatever labels."""
    ours = counter("corral_things", "Some text.", "host", "model")
    other, registry = theirs(prometheus_client.Counter, "corral_things", ("host", "model"))
    for labels, amount in happened:
        ours.labels(*labels).inc(amount)
        other.labels(*labels).inc(amount)
    assert read(text(ours)) == read(prometheus_client.generate_latest(registry).decode())


@given(st.lists(st.tuples(pairs, amounts | st.sampled_from(BOUNDS)), max_size=20))
@PROPERTY
def test_histograms_like_theirs(happened: list[tuple[tuple[str, str], float]]) -> None:
    """Whatever is observed under whatever labels, bounds included."""
    ours = histogram("corral_wait_seconds", "Some text.", BOUNDS, "host", "model")
    other, registry = theirs(prometheus_client.Histogram, "corral_wait_seconds", ("host", "model"), buckets=BOUNDS)
    for labels, amount in happened:
        ours.labels(*labels).observe(amount)
        other.labels(*labels).observe(amount)
    assert read(text(ours)) == read(prometheus_client.generate_latest(registry).decode())


@given(st.dictionaries(pairs, st.floats(allow_nan=False) | st.integers(-1000, 1000), max_size=12))
@PROPERTY
def test_gauges_like_theirs(rows: dict[tuple[str, str], float]) -> None:
    """Whatever the values, infinity included."""
    other, registry = theirs(prometheus_client.Gauge, "corral_now", ("host", "model"))
    for labels, value in rows.items():
        other.labels(*labels).set(value)
    said = text(Reading("gauge", "corral_now", "Some text.", ("host", "model"), rows.items()))
    assert read(said) == read(prometheus_client.generate_latest(registry).decode())


def test_their_lines_are_ours() -> None:
    """Not only what is parsed, but every character, so that nothing depends on a lenient reader."""
    ours: list[Family[Counter] | Family[Histogram]] = [
        counter("corral_things", "Some text.", "host"),
        histogram("corral_wait_seconds", "Some text.", BOUNDS, "host"),
    ]
    registry = prometheus_client.CollectorRegistry()
    count = prometheus_client.Counter("corral_things", "Some text.", ("host",), registry=registry)
    wait = prometheus_client.Histogram(
        "corral_wait_seconds", "Some text.", ("host",), registry=registry, buckets=BOUNDS
    )
    for host in ("gpu1", 'a "b" \\ c\nd'):
        ours[0].labels(host).inc(3)  # type: ignore[union-attr]
        ours[1].labels(host).observe(0.5)  # type: ignore[union-attr]
        count.labels(host).inc(3)
        wait.labels(host).observe(0.5)
    lines = prometheus_client.generate_latest(registry).decode().splitlines()
    said = [line for family in ours for line in text(family).splitlines()]
    assert sorted(said) == sorted(line for line in lines if "_created" not in line)


# -- OpenMetrics ----------------------------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def read_openmetrics(said: str) -> dict[str, Any]:
    """Families by name, as prometheus-client's strict parser reads them."""
    return {family.name: family for family in openmetrics_families(said + "# EOF\n")}


def test_openmetrics() -> None:
    """Has the same samples under the same names; units where there are any, and a counter's family without its suffix."""
    count, wait = counter("corral_tokens", "Tokens.", "host"), histogram("corral_wait_seconds", "Waiting.", BOUNDS)
    count.labels('a "b" \\ c\nd').inc(3)
    for value in (0.05, 7.0, 70.0):
        wait.labels().observe(value)
    up = Reading("gauge", "corral_up", "Up.", ("host",), [(("gpu1",), 1)])
    connections = Reading("counter", "corral_connections", "Connections.", (), [((), 4)])
    families: list[Any] = [count, wait, up, connections]
    found = read_openmetrics("".join(text(family, openmetrics=True) for family in families))
    assert {name: (family.type, family.unit) for name, family in found.items()} == {
        "corral_tokens": ("counter", "tokens"),
        "corral_wait_seconds": ("histogram", "seconds"),
        "corral_up": ("gauge", ""),
        "corral_connections": ("counter", ""),
    }
    plain = read("".join(text(family) for family in families))
    assert {key(sample): sample.value for family in found.values() for sample in family.samples} == plain


def test_exemplars() -> None:
    """Stand at the bucket of the value they are of, the last one of each; the text format has no place for them."""
    wait = histogram("corral_wait_seconds", "Waiting.", BOUNDS, "host")
    child = wait.labels("100%")
    for value in (0.3, 0.4, 70.0):
        child.observe(value)
        child.exemplify(value, TRACE, 1_795_354_517.25)
    (family,) = read_openmetrics(text(wait, openmetrics=True)).values()
    shown = {sample.labels["le"]: sample.exemplar for sample in family.samples if sample.exemplar}
    assert {le: (one.labels, one.value, float(one.timestamp)) for le, one in shown.items()} == {
        "0.5": ({"trace_id": TRACE}, 0.4, 1_795_354_517.25),
        "+Inf": ({"trace_id": TRACE}, 70.0, 1_795_354_517.25),
    }
    assert TRACE not in text(wait)
    assert ("corral_wait_seconds_count", (("host", "100%"),)) in read(text(wait))


plain_label = st.text('ab"\\\n%= é😀', max_size=6)  # their strict reader stumbles over braces and commas


@given(st.lists(st.tuples(st.tuples(plain_label, plain_label), amounts | st.sampled_from(BOUNDS)), max_size=20))
@PROPERTY
def test_openmetrics_like_theirs(happened: list[tuple[tuple[str, str], float]]) -> None:
    """Whatever is observed under whatever labels, every sample is theirs, in their order."""
    ours = histogram("corral_wait_seconds", "Some text.", BOUNDS, "host", "model")
    other, registry = theirs(prometheus_client.Histogram, "corral_wait_seconds", ("host", "model"), buckets=BOUNDS)
    for labels, amount in happened:
        ours.labels(*labels).observe(amount)
        other.labels(*labels).observe(amount)
    lines = exposition.generate_latest(registry).decode().splitlines()
    strict = read_openmetrics(text(ours, openmetrics=True))
    theirs_too = {family.name: family for family in openmetrics_families("\n".join(lines) + "\n")}
    for name, family in theirs_too.items():
        samples = {key(sample): sample.value for sample in family.samples if not sample.name.endswith("_created")}
        assert {key(sample): sample.value for sample in strict[name].samples} == samples


@pytest.mark.parametrize(
    ("name", "unit"),
    [("corral_wait_seconds", "seconds"), ("corral_tokens", "tokens"), ("corral_bytes_in", ""), ("corral_up", "")],
)
def test_units(name: str, unit: str) -> None:
    """Are the last word of a name."""
    assert unit_of(name) == unit
