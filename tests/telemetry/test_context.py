"""Trace contexts, by W3C's rules: what is joined, what is begun anew, who is sampled, and what goes out."""

import random
import re
from typing import Any

import pytest

from gateway.config import TracingConfig
from gateway.record import NO_TRACE, Trace
from gateway.telemetry.context import Contexts, current, parsed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"


def contexts(endpoint: str = "http://tempo:4318", **changes: Any) -> Contexts:
    """Those of a gateway that samples nothing by itself, but for what is given."""
    return Contexts(TracingConfig(endpoint, **({"ratio": 0.0} | changes)), random.Random(1))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(HEADER, (TRACE, SPAN, True), id="sampled"),
        pytest.param(UNSAMPLED, (TRACE, SPAN, False), id="not sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-03", (TRACE, SPAN, True), id="another flag too"),
        pytest.param(f"00-{TRACE}-{SPAN}-02", (TRACE, SPAN, False), id="another flag only"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01", (TRACE, SPAN, True), id="a later version"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-ever", (TRACE, SPAN, True), id="a later version with more"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01.what", None, id="a later version run on"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-more", None, id="more"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", None, id="the version that is none"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", None, id="no trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", None, id="no span"),
        pytest.param(HEADER.upper(), None, id="upper case"),
        pytest.param(f" {HEADER}", None, id="a blank"),
        pytest.param(f"{HEADER},{HEADER}", None, id="twice"),
        pytest.param(f"{HEADER}\n", None, id="a newline"),
        pytest.param(HEADER[:-1], None, id="too short"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_parsed(header: str, expected: tuple[str, str, bool] | None) -> None:
    """Valid ones are understood, also of later versions; all else is as if it were not there."""
    assert parsed(header) == expected


def test_a_trace_is_joined() -> None:
    """With a span of our own below the caller's; its state goes along."""
    trace = contexts().begin("g1", HEADER, "a=1,b=2")
    assert (trace.trace_id, trace.parent_id, trace.sampled, trace.state) == (TRACE, SPAN, True, "a=1,b=2")
    assert trace.span_id not in (SPAN, "0" * 16)


@pytest.mark.parametrize("header", ["", "garbage", f"ff-{TRACE}-{SPAN}-01"])
def test_a_trace_is_begun(header: str) -> None:
    """Where none can be joined; then its state is nobody's."""
    one, other = (contexts_.begin("g1", header, "a=1") for contexts_ in [contexts()] * 2)
    assert re.fullmatch("[0-9a-f]{32}", one.trace_id)
    assert (one.parent_id, one.state, one.sampled) == ("", "", False)
    assert one.trace_id != other.trace_id
    assert one.span_id != other.span_id


def test_a_state_that_is_too_long() -> None:
    """Is left out, as W3C allows."""
    assert contexts().begin("g1", HEADER, "a=" + "x" * 511).state == ""


@pytest.mark.parametrize(
    ("changes", "header", "sampled"),
    [
        ({"ratio": 1.0}, "", True),
        ({"ratio": 0.0}, "", False),
        ({"ratio": 1.0}, UNSAMPLED, True),
        ({"trust_incoming": True}, HEADER, True),
        ({"trust_incoming": True}, UNSAMPLED, False),
        ({"trust_incoming": False}, HEADER, False),
        ({"mode": "all"}, "", True),
        ({"mode": "errors", "ratio": 1.0}, "", False),
        ({"mode": "off", "ratio": 1.0}, HEADER, False),
        ({"endpoint": "", "ratio": 1.0}, HEADER, False),
    ],
)
def test_who_is_sampled(changes: dict[str, Any], header: str, sampled: bool) -> None:
    """By our own ratio, or because a caller says so who is trusted."""
    assert contexts(**changes).begin("g1", header).sampled is sampled


def test_the_ratio() -> None:
    """Is kept to, and decides by the trace's id: gateways that share a trace agree."""
    made = [contexts_.begin("g1") for contexts_ in [contexts(ratio=0.25)] for _ in range(4000)]
    assert 0.2 < sum(trace.sampled for trace in made) / len(made) < 0.3
    again = contexts(ratio=0.25)
    for trace in made[:200]:
        assert again.begin("g2", f"00-{trace.trace_id}-{SPAN}-00").sampled is trace.sampled


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 64])
def test_a_callers_name_for_the_request(name: str) -> None:
    """Is taken."""
    assert contexts().begin("g1", request_id=name).request_id == name


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "é", "x" * 65, "a\n", "<script>", "a,b"])
def test_names_that_are_none(name: str) -> None:
    """Are replaced by the generation's id: they go into logs and answers."""
    assert contexts().begin("g1", request_id=name).request_id == "g1"


def test_what_goes_out() -> None:
    """Each attempt has a span of its own, and none is the caller's."""
    trace = Trace(TRACE, "00000000000000fe", SPAN, sampled=True, state="a=1", ours=True)
    assert trace.traceparent(trace.span_id) == f"00-{TRACE}-00000000000000fe-01"
    assert trace.lines(2) == f"traceparent: 00-{TRACE}-0000000000000100-01\r\ntracestate: a=1\r\n"
    assert Trace(TRACE, "f" * 16).attempt_id(2) == "0000000000000001"


def test_what_goes_out_without_tracing() -> None:
    """The caller's own context, as it came; nothing where there was none."""
    off = contexts(endpoint="")
    assert off.begin("g1", UNSAMPLED, "a=1").lines(1) == f"traceparent: {UNSAMPLED}\r\ntracestate: a=1\r\n"
    assert off.begin("g1", "garbage").lines(1) == off.begin("g1").lines(1) == NO_TRACE.lines(1) == ""


def test_no_ids_where_nobody_traces() -> None:
    """Neither of an inference nor of any other request, which is named all the same."""
    off = contexts("")
    inference, other = off.begin("g1"), off.begin("")
    assert [(trace.trace_id, trace.span_id) for trace in (inference, other)] == [("", "")] * 2
    assert inference.request_id == "g1"
    assert re.fullmatch("[0-9a-f]{32}", other.request_id)


def test_the_answer() -> None:
    """Names the request always, the trace only if it is certain to be kept."""
    assert contexts().begin("g1").answer == (("X-Request-Id", "g1"),)
    trace = contexts(ratio=1.0).begin("g1", request_id="mine")
    assert trace.answer == (("X-Request-Id", "mine"), ("traceresponse", f"00-{trace.trace_id}-{trace.span_id}-01"))


def test_following() -> None:
    """What Corral does on a request's behalf is in its trace, with spans of its own; other things are in none."""
    all_ = contexts(ratio=1.0)
    alone = all_.follow("g1")
    whose = all_.begin("g2", HEADER, "a=1", "mine")
    current.set(whose)
    one, other = all_.follow("g3"), all_.follow("g4")
    current.set(None)
    assert (alone.parent_id, alone.request_id) == ("", "g1")
    assert {trace.trace_id for trace in (one, other)} == {TRACE}
    assert len({trace.span_id for trace in (whose, one, other)}) == 3
    assert (one.parent_id, one.request_id, one.state) == (SPAN, "mine", "a=1")
