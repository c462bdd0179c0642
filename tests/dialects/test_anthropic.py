"""Anthropic's dialect: errors, endings, and last words that close what is open."""

import json

import pytest

from gateway.dialects.anthropic import cancelled, ending, error_body, failed
from gateway.dialects.ending import Ended, Ending
from tests.contract.cases import CASES
from tests.contract.shapes import differences
from tests.dialects.streams import STREAMS, event, events_of, words


@pytest.mark.parametrize("case", ["v1_messages_404", "v1_messages_bad"])
def test_errors_as_ollama_spells_them(case: str) -> None:
    """An error is typed and carries a request id, shaped as recorded."""
    recorded = CASES[case].chunks[0]
    assert isinstance(recorded, bytes)
    wanted = json.loads(recorded)
    body = error_body(CASES[case].status, wanted["error"]["message"], "bad_request", "a" * 24)
    assert list(json.loads(body)) == list(wanted)
    assert differences([wanted], [json.loads(body)]) == []
    assert json.loads(body)["request_id"] == f"req_{'a' * 24}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (499, "api_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_error_types(status: int, kind: str) -> None:
    """The type follows the status."""
    assert json.loads(error_body(status, "no", "x", "g"))["error"] == {"type": kind, "message": "no"}


# -- endings ----------------------------------------------------------------------------------------------------------------------


def block(kind: str, index: int = 0, **fields: object) -> bytes:
    """An event of one block of content."""
    return event(f"content_block_{kind}", type=f"content_block_{kind}", index=index, **fields)


def said(text: str = "a", index: int = 0) -> bytes:
    """A token."""
    return block("delta", index, delta={"type": "text_delta", "text": text})


START = block("start", content_block={"type": "text", "text": ""})
STOP = event("message_stop", type="message_stop")
FAILED = "the host ended the stream with an error event"
ENDINGS = {
    "whole": (said() + block("stop") + STOP, Ending(Ended.COMPLETE)),
    "an error event": (said() + event("error", type="error", error={"message": "no"}), Ending(Ended.ERROR, FAILED)),
    "too early": (said(), Ending(Ended.UNFINISHED)),
    "before its last event": (said() + block("stop"), Ending(Ended.UNFINISHED)),
    "too early, speaking of it": (said('"type":"message_stop"'), Ending(Ended.UNFINISHED)),
    "too early, speaking of an error": (said("\n\nevent: error"), Ending(Ended.UNFINISHED)),
    "with nothing": (b"", Ending(Ended.UNFINISHED)),
}


@pytest.mark.parametrize(("tail", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_endings(tail: bytes, expected: Ending) -> None:
    """An answer is whole with ``message_stop``."""
    assert ending(tail) == expected


# -- last words -------------------------------------------------------------------------------------------------------------------


def test_failed() -> None:
    """A broken stream ends with an error event."""
    message = {"type": "api_error", "message": "host gpu1 closed the connection"}
    assert events_of(failed(words())) == [("error", {"type": "error", "error": message})]


CLOSED = {
    "in a block": (START + said(), [0]),
    "at the start of a block": (START, [0]),
    "in the third block": (block("stop", 1) + said(index=2), [2]),
    "after a block": (START + said() + block("stop"), []),
    "before any block": (event("message_start", type="message_start", message={}), []),
    "with nothing": (b"", []),
    "in a block that speaks of another": (said('{"type":"content_block_start","index":7}'), [0]),
}


@pytest.mark.parametrize(("tail", "closed"), CLOSED.values(), ids=CLOSED)
def test_cancelled(tail: bytes, closed: list[int]) -> None:
    """A cancelled stream closes the open block, then says why, then stops."""
    *stops, (_, delta), (_, stop) = events_of(cancelled(words(tail)))
    assert [data["index"] for _, data in stops] == closed
    assert all(name == data["type"] == "content_block_stop" for name, data in stops)
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "cancelled", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    }
    assert stop == {"type": "message_stop"}


def test_cancelled_in_a_recorded_answer() -> None:
    """Where a real answer is cut within its text, block and message are closed."""
    begun = STREAMS["v1_messages_stream"][:700].rpartition(b"\n\n")[0] + b"\n\n"
    names = [name for name, _ in events_of(begun + cancelled(words(begun)))]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_last_words_are_an_ending() -> None:
    """What we say at an end is read as one by our own rules."""
    assert ending(cancelled(words())).ended is Ended.COMPLETE
    assert ending(failed(words())).ended is Ended.ERROR
