"""Many hosts' progress as one Ollama's: rules in examples, and what holds whatever the interleaving."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.progress import BARS_MOST, PACE_SECONDS, STATUSES_MOST, Line, Part, PartState, Progress, failure

X, Y = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SUCCESS = {"status": "success"}
MANIFEST = {"status": "pulling manifest"}
WRITING = {"status": "writing manifest"}


def merged(*hosts: str, name_hosts: bool = True) -> Progress:
    """The progress of these hosts."""
    return Progress({host: Part() for host in hosts}, name_hosts=name_hosts)


def bar(completed: int, total: int = 100, digest: str = X) -> Line:
    """A layer's progress, as a host says it."""
    line: Line = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
    return line | ({"completed": completed} if completed else {})


def said(progress: Progress, *events: tuple[str, dict[str, Any]], every: float = 1.0) -> list[Line]:
    """What is said after each host's lines, ``every`` so many seconds."""
    return [line for at, (host, line) in enumerate(events) for line in progress.take(host, line, at * every)]


def test_each_status_once() -> None:
    """What comes before the layers at once, anything else when nobody is still to come to it."""
    progress = merged("a", "b")
    verifying = {"status": "verifying sha256 digest"}
    assert said(progress, ("a", MANIFEST), ("b", MANIFEST)) == [MANIFEST]
    assert said(progress, ("a", verifying), ("a", WRITING), ("a", SUCCESS)) == []
    assert said(progress, ("b", verifying)) == [verifying]
    assert said(progress, ("b", WRITING), ("b", WRITING)) == [WRITING]


def test_a_status_does_not_overtake_the_bars() -> None:
    """The slowest host's bar is full before anything that comes after it is said."""
    progress = merged("a", "b")
    lines = said(progress, ("a", bar(100)), ("a", WRITING), ("b", bar(40)), ("b", bar(100)), ("b", WRITING))
    assert lines == [bar(0), bar(40), bar(100), WRITING]


def test_who_fails_holds_no_status_back() -> None:
    """Nor does who succeeded without having said it."""
    progress = merged("a", "b", "c")
    lines = said(progress, ("a", bar(100)), ("a", WRITING), ("b", bar(40)), ("b", {"error": "no"}), ("c", SUCCESS))
    assert lines == [bar(0), bar(100), WRITING]


def test_a_status_that_one_host_says_alone() -> None:
    """It is said before the end, whoever ends last."""
    unused = {"status": "removing unused layers"}
    progress = merged("a", "b")
    assert said(progress, ("a", WRITING), ("a", unused), ("b", WRITING), ("a", SUCCESS)) == [WRITING]
    assert said(progress, ("b", SUCCESS)) == [unused]


def test_a_bar_is_the_slowest() -> None:
    """Of the hosts that still run; one that has not come to the layer has nothing of it."""
    progress = merged("a", "b")
    lines = said(progress, ("a", bar(50)), ("b", bar(20)), ("b", bar(40)), ("a", bar(100)), ("b", bar(100)))
    assert lines == [bar(0), bar(20), bar(40), bar(100)]


def test_who_has_the_layer_does_not_hold_up() -> None:
    """It says at once that it is complete."""
    assert said(merged("a", "b"), ("a", bar(100)), ("b", bar(30))) == [bar(0), bar(30)]


def test_who_is_past_the_layers_does_not_hold_up() -> None:
    """A host that creates from a model that it has never speaks of layers; another one has to pull it."""
    lines = said(merged("a", "b"), ("a", bar(30)), ("b", {"status": "using existing layer"}), ("a", bar(60)))
    assert lines == [bar(0), bar(30), bar(60)]


def test_who_has_ended_does_not_hold_up() -> None:
    """Neither who failed nor who succeeded."""
    lines = said(merged("a", "b", "c"), ("a", bar(30)), ("b", {"error": "no"}), ("c", SUCCESS))
    assert lines == [bar(0), bar(30)]


def test_never_back_and_never_beyond() -> None:
    """A host that starts a part anew, or counts too far, does not show."""
    assert said(merged("a"), ("a", bar(50)), ("a", bar(20)), ("a", bar(120))) == [bar(50), bar(100)]


def test_pace() -> None:
    """At most a line in 60 ms for each digest, but for the last step, and other digests have their own pace."""
    events = [("a", bar(n)) for n in (10, 20, 30)] + [
        ("a", bar(5, digest=Y)),
        ("a", bar(100)),
        ("a", bar(50, digest=Y)),
    ]
    assert said(merged("a"), *events, every=PACE_SECONDS / 10) == [bar(10), bar(5, digest=Y), bar(100)]


def test_no_size_yet() -> None:
    """A digest without a total is said as such."""
    line = {"status": "quantizing", "digest": "0000000000000000000"}
    assert said(merged("a"), ("a", line)) == [line]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param({"a": "", "b": ""}, SUCCESS, id="all"),
        pytest.param({"a": "no", "b": ""}, {"error": "a: no (succeeded on b)"}, id="one failed"),
        pytest.param({"a": "no", "b": "never"}, {"error": "a: no; b: never"}, id="all failed"),
        pytest.param({"a": "no", "b": "never", "c": "no"}, {"error": "a, c: no; b: never"}, id="two alike"),
        pytest.param({"a": "x", "b": "", "c": ""}, {"error": "a: x (succeeded on b, c)"}, id="two worked"),
    ],
)
def test_the_last_line(ends: dict[str, str], expected: Line) -> None:
    """Success is everybody's; an error names who failed and who did not."""
    progress = merged(*ends)
    for host, why in ends.items():
        progress.take(host, {"error": why} if why else SUCCESS, 0.0)
    assert not progress.running
    assert progress.last() == expected


def test_without_names() -> None:
    """A fleet of one speaks as that one."""
    progress = merged("a", name_hosts=False)
    progress.end("a", PartState.FAILED, "pull model manifest: file does not exist", 0.0)
    assert progress.last() == {"error": "pull model manifest: file does not exist"}


def test_what_comes_after_the_end() -> None:
    """It is not heard."""
    progress = merged("a", "b")
    assert said(progress, ("a", SUCCESS), ("a", WRITING), ("a", {"error": "late"})) == []
    assert progress.running


def test_nobody_failed() -> None:
    """No text."""
    assert failure({"a": Part(), "b": Part(PartState.SUCCEEDED)}, name_hosts=True) == ""


@pytest.mark.parametrize(
    "line",
    [{}, {"status": None}, {"status": 7, "digest": 8}, {"digest": X, "total": "x"}, {"digest": X, "total": 2**63}],
)
def test_odd_lines(line: Line) -> None:
    """What is no progress breaks nothing."""
    progress = merged("a", "b")
    assert all(isinstance(one, dict) for one in progress.take("a", line, 0.0))
    assert progress.running


LINES = st.one_of(
    st.sampled_from([MANIFEST, WRITING, {"status": "verifying sha256 digest"}]),
    st.builds(bar, st.integers(0, 120), st.just(100), st.sampled_from([X, Y])),
)
ENDS = st.sampled_from([SUCCESS, {"error": "no"}])


@given(st.data(), st.integers(1, 4))
def test_whatever_the_interleaving(data: st.DataObject, count: int) -> None:
    """Bars only rise and stay within their size and pace; statuses come once; success or an error comes once, last, and is right."""
    hosts = [f"gpu{number}" for number in range(count)]
    scripts = {host: [*data.draw(st.lists(LINES, max_size=8)), data.draw(ENDS)] for host in hosts}
    ends = [script[-1] for script in scripts.values()]
    progress, now, lines = merged(*hosts), 0.0, []
    heard: dict[str, list[Line]] = {host: [] for host in hosts}
    while progress.running:
        host = data.draw(st.sampled_from([host for host in hosts if scripts[host]]))
        now += data.draw(st.sampled_from([0.0, 0.01, 0.05, 1.0]))
        heard[host].append(scripts[host].pop(0))
        for line in progress.take(host, heard[host][-1], now):
            lines.append((now, line))
            early = line == MANIFEST or "digest" in line
            assert early or all(line in heard[other] for other in hosts if scripts[other])
    lines.append((now, progress.last()))
    assert ("error" in lines[-1][1]) is ({"error": "no"} in ends)
    assert sum("error" in line or line == SUCCESS for _, line in lines) == 1
    statuses = [line["status"] for _, line in lines[:-1] if "digest" not in line]
    assert len(set(statuses)) == len(statuses)
    for digest in (X, Y):
        bars = [(at, line.get("completed", 0)) for at, line in lines if line.get("digest") == digest]
        values = [value for _, value in bars]
        assert values == sorted(set(values))
        assert all(0 <= value <= 100 for value in values)
        paced = [at for at, value in bars if value < 100]
        assert all(later - sooner >= PACE_SECONDS for sooner, later in itertools.pairwise(paced))


def test_truth_is_no_count() -> None:
    """JSON's true would be told as bytes."""
    part = Part()
    part.take({"digest": "sha256:a", "total": True, "completed": True})
    assert (part.total, part.completed) == (0, 0)
    assert type(part.completed) is int


def test_a_host_that_invents() -> None:
    """Bars and statuses without end are told up to a bound, and the end all the same."""
    progress = merged("a", "b")
    digests = [f"sha256:{number:064}" for number in range(BARS_MOST + 50)]
    assert len(said(progress, *(("a", bar(1, 9, digest)) for digest in digests))) == BARS_MOST
    words = [(host, {"status": f"status {number}"}) for number in range(STATUSES_MOST + 50) for host in "ab"]
    lines = said(progress, *words, ("a", SUCCESS), ("b", SUCCESS))
    assert len([line for line in lines if "digest" not in line]) == STATUSES_MOST
    assert progress.last() == SUCCESS
