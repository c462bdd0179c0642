"""All inference paths together: what holds for each of them, on recorded answers cut anywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.ending import Ended, Ending
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import Framing, Meter
from gateway.dialects.usage import usage_of
from gateway.record import Usage
from tests.builders import ANTHROPIC, NATIVE, OPENAI, PATHS
from tests.contract.cases import CASES
from tests.dialects.streams import STREAMS, cuts, endpoint_of, events_of, framing_in, lines_of, words
from tests.profiles import PROPERTY

BROKEN = {"generate_runner_killed", "chat_runner_killed", "v1_chat_runner_killed", "v1_responses_runner_killed"}
WHOLE = sorted(set(STREAMS) - BROKEN)


def test_every_path_is_there() -> None:
    """Ollama's ten inference paths, each under its own name and in its own dialect."""
    assert set(ENDPOINTS) == set(PATHS)
    assert all(endpoint.path == path for path, endpoint in ENDPOINTS.items())
    dialects = {"ollama": NATIVE, "openai": OPENAI, "anthropic": ANTHROPIC}
    assert {path: endpoint.dialect for path, endpoint in ENDPOINTS.items()} == {
        path: dialect for dialect, paths in dialects.items() for path in paths
    }


@pytest.mark.parametrize("path", PATHS)
def test_an_error_is_json(path: str) -> None:
    """Whatever is said, it is one JSON value that holds it."""
    message = 'a "quoted"\nmessage — with ünïcode'
    body = json.loads(ENDPOINTS[path].error(503, message, "no_host", "g1"))
    assert message in (body["error"], *(body["error"].values() if isinstance(body["error"], dict) else ()))


@pytest.mark.parametrize("path", PATHS)
def test_what_is_said_of_models(path: str) -> None:
    """An unknown model is named as sent; a missing one has an error status."""
    assert "SmolLM2" in ENDPOINTS[path].not_found.format("SmolLM2")
    assert ENDPOINTS[path].missing_model[0] in (400, 404)


# -- recorded answers -------------------------------------------------------------------------------------------------------------


def judged(name: str, reads: list[bytes]) -> tuple[Ending, Usage, int]:
    """What is known of a recorded answer that was read so: its ending, its usage, the tokens as counted."""
    endpoint, framing = endpoint_of(name), framing_in(name)
    meter = Meter(framing)
    for data in reads:
        meter.feed(data, 0.0)
    meter.flush()
    ending = endpoint.ending(meter.tail)
    final = meter.last_line if framing is Framing.NDJSON else meter.tail
    counted = meter.newlines // endpoint.lines_per_event - endpoint.preamble_events - ending.extra_events
    return ending, usage_of(final, counted, complete=ending.ended is Ended.COMPLETE), counted


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer(name: str) -> None:
    """A real answer is taken for whole; what is counted differs from what is reported by framing events at most."""
    if any(chunk == "..." for chunk in CASES[name].chunks):
        pytest.skip("recorded in part")
    ending, usage, counted = judged(name, [STREAMS[name]])
    assert ending.ended is Ended.COMPLETE
    assert counted >= 0
    if usage.accounting == "reported":
        assert usage.output_tokens > 0
        assert abs(usage.output_tokens - counted) <= 5


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_an_answer_whose_runner_was_killed(name: str) -> None:
    """What Ollama makes of a dead runner is never taken for a whole answer."""
    ending, usage, _ = judged(name, [STREAMS[name]])
    assert ending.ended is not Ended.COMPLETE
    assert usage.accounting == "counted"


@given(data=st.data(), name=st.sampled_from(sorted(STREAMS)))
@PROPERTY
def test_endings_and_usage_do_not_depend_on_cutting(data: st.DataObject, name: str) -> None:
    """Ending, usage and count of a real answer are the same however its bytes come."""
    assert judged(name, data.draw(cuts(STREAMS[name]))) == judged(name, [STREAMS[name]])


@given(data=st.data(), name=st.sampled_from(sorted(STREAMS)), say=st.sampled_from(["failed", "cancelled"]))
@PROPERTY
def test_last_words_anywhere(data: st.DataObject, name: str, say: str) -> None:
    """Wherever a real answer breaks off, with our last words it is a stream that clients read, and that has ended."""
    endpoint, framing = endpoint_of(name), framing_in(name)
    whole = STREAMS[name]
    meter = Meter(framing)
    said = b"".join(
        meter.feed(piece, 0.0) for piece in data.draw(cuts(whole[: data.draw(st.integers(0, len(whole) - 1))]))
    )
    meter.drop()
    said += getattr(endpoint, say)(words(meter.tail))
    assert lines_of(said) if framing is Framing.NDJSON else events_of(said)
    assert endpoint.ending(said).ended is {"failed": Ended.ERROR, "cancelled": Ended.COMPLETE}[say]


@pytest.mark.parametrize("path", [path for path in ENDPOINTS if path.startswith("/v1/")])
def test_only_what_is_not_read_ends_without_a_newline(path: str) -> None:
    """As recorded (v1_chat_404 and v1_messages_404 against v1_chat_bad and v1_messages_bad)."""
    ends = {status: ENDPOINTS[path].error(status, "no", "code", "1").endswith(b"\n") for status in (400, 404, 502)}
    assert ends == {400: False, 404: True, 502: True}
