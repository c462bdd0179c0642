"""The comparer of answers sees what it must see, and nothing else."""

from typing import Any

import pytest

from tests.contract.cases import CASES, answer_differences
from tests.contract.conformance import misshapen, unlike
from tests.contract.raw import Answer
from tests.contract.shapes import differences, stream_differences

TOKEN = b'{"model":"m","created_at":"t","response":"Hi","done":false}\n'
OTHER = b'{"model":"m","created_at":"u","response":" you","done":false}\n'
FINAL = b'{"model":"m","created_at":"v","response":"","done":true,"eval_count":2}\n'
ERROR = b'{"error":"it broke"}\n'


@pytest.mark.parametrize(
    ("expected", "actual", "alike"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, False, id="order of keys"),
        pytest.param({"a": 1}, {"a": 1, "b": None}, False, id="a key too many"),
        pytest.param({"index": 0}, {"index": 1}, False, id="a value that is fixed"),
        pytest.param({"eval_count": 3}, {"eval_count": 9}, True, id="a value that is free"),
        pytest.param({"eval_count": 3}, {"eval_count": 9.0}, False, id="another type"),
        pytest.param({"content": "a"}, {"content": ""}, False, id="nothing for something"),
        pytest.param({"content": ""}, {"content": "a"}, False, id="something for nothing"),
        pytest.param({"done": True}, {"done": False}, False, id="a flag"),
        pytest.param({"error": "a"}, {"error": "b"}, False, id="an error's text"),
        pytest.param({"x": None}, {"x": 1}, False, id="null"),
        pytest.param({"status": f"using {'0' * 64}"}, {"status": f"using {'f' * 64}"}, True, id="a digest"),
        pytest.param([{"index": 1}], [{"index": 1}, {"index": 1}], True, id="more of the same"),
        pytest.param([{"index": 1}], [{"index": 1}, {"index": 2}], False, id="more of another"),
        pytest.param([1], [], False, id="an empty list"),
        pytest.param({"tensors": [{"type": "F32"}]}, {"tensors": [{"type": "F16"}]}, True, id="free below its parent"),
        pytest.param({"type": "F32"}, {"type": "F16"}, False, id="not free elsewhere"),
    ],
)
def test_differences(expected: Any, actual: Any, alike: bool) -> None:
    """Order, types and fixed values count; free values do not."""
    assert (differences(expected, actual) == []) is alike


@pytest.mark.parametrize(
    ("expected", "actual", "alike"),
    [
        pytest.param([TOKEN, OTHER, FINAL], [OTHER, FINAL], True, id="another number of tokens"),
        pytest.param([TOKEN, FINAL], [TOKEN], False, id="no end"),
        pytest.param([TOKEN, FINAL], [TOKEN, FINAL, ERROR], False, id="more than the end"),
        pytest.param([TOKEN, FINAL], [TOKEN + FINAL], False, id="two lines in one chunk"),
        pytest.param([TOKEN, FINAL], [FINAL, TOKEN], False, id="order"),
        pytest.param([TOKEN, "...", OTHER, ERROR], [TOKEN, OTHER, ERROR], True, id="a gap"),
        pytest.param([TOKEN, "...", OTHER, ERROR], [TOKEN, FINAL], False, id="another end after a gap"),
    ],
)
def test_stream_differences(expected: list[bytes | str], actual: list[bytes], alike: bool) -> None:
    """Equal chunks after each other count as one, and everything else counts."""
    assert (stream_differences(expected, actual) == []) is alike


@pytest.mark.parametrize("name", CASES)
def test_every_recording_is_like_itself(name: str) -> None:
    """A recording compared with itself has no differences, and its beginning alone has."""
    case = CASES[name]
    chunks = [chunk for chunk in case.chunks if isinstance(chunk, bytes)]
    same = Answer(case.status, case.reason, case.answer_headers, "chunked", chunks)
    assert answer_differences(case, same) == []
    if chunks:
        beginning = chunks[: len(chunks) > 1]
        assert answer_differences(case, Answer(case.status, case.reason, case.answer_headers, "chunked", beginning))


TYPE = [("Content-Type", "application/x-ndjson"), ("Date", "now")]
LATER = b'{"model":"m","created_at":"later","response":"Hi","done":false}\n'


def answer(*chunks: bytes, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Answer:
    """A streamed answer."""
    return Answer(status, "OK", headers or TYPE, "chunked", list(chunks))


@pytest.mark.parametrize(
    ("relayed", "alike"),
    [
        pytest.param(answer(TOKEN, FINAL), True, id="the same"),
        pytest.param(answer(LATER, FINAL), True, id="another time"),
        pytest.param(answer(TOKEN + FINAL), True, id="two lines in one chunk, as networks do"),
        pytest.param(answer(TOKEN, FINAL[:9], FINAL[9:]), False, id="a line in two chunks"),
        pytest.param(answer(OTHER, FINAL), False, id="another token"),
        pytest.param(answer(TOKEN), False, id="no end"),
        pytest.param(answer(TOKEN, FINAL, ERROR), False, id="more than the end"),
        pytest.param(answer(TOKEN, FINAL, status=500), False, id="another status"),
        pytest.param(answer(TOKEN, FINAL, headers=[*TYPE, ("Server", "x")]), False, id="a header too many"),
        pytest.param(answer(TOKEN, FINAL, headers=[*TYPE, ("X-Corral-Host", "x")]), True, id="a header of Corral's"),
        pytest.param(Answer(200, "OK", TYPE, "close", [TOKEN, FINAL]), False, id="another framing"),
    ],
)
def test_unlike(relayed: Answer, alike: bool) -> None:
    """Between two hosts that say the same, only times may differ, and how many lines come at once."""
    assert (unlike(answer(TOKEN, FINAL), relayed) == []) is alike


def test_misshapen() -> None:
    """Between hosts that say what they like, the shape counts."""
    assert misshapen(answer(TOKEN, OTHER, FINAL), answer(OTHER, FINAL)) == []
    assert misshapen(answer(TOKEN, FINAL), answer(TOKEN, FINAL, ERROR)) != []
