"""The native dialect: how it says that something is wrong, how its answers end, and its last words."""

import json

import pytest

from gateway.dialects.ending import Ended, Ending
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.lines import KEEP_BYTES, Framing, Meter
from gateway.dialects.ollama import cancelled, ending, error_body, failed, message_of
from tests.builders import NATIVE
from tests.contract.cases import CASES
from tests.dialects.streams import line, lines_of, words

LAST = {"done": True, "done_reason": "stop", "total_duration": 9, "eval_count": 3}


@pytest.mark.parametrize("case", ["generate_404", "chat_404", "chat_no_model", "embed_404", "embeddings_404"])
def test_errors_as_ollama_spells_them(case: str) -> None:
    """An error is ``{"error": text}``, byte for byte as recorded."""
    recorded = CASES[case].chunks[0]
    assert isinstance(recorded, bytes)
    message = json.loads(recorded)["error"]
    assert error_body(CASES[case].status, message, "model_not_found", "g1") == recorded


@pytest.mark.parametrize(
    ("case", "path", "name"),
    [
        ("generate_404", "/api/generate", "nope"),
        ("chat_404", "/api/chat", "nope"),
        ("embed_404", "/api/embed", "nope"),
        ("embeddings_404", "/api/embeddings", "nope"),
    ],
)
def test_what_is_said_of_an_unknown_model(case: str, path: str, name: str) -> None:
    """The text names the model as it was sent, in the quotes of that path."""
    recorded = CASES[case]
    assert recorded.path == path
    sent = json.loads(recorded.body or b"")["model"]
    assert error_body(404, ENDPOINTS[path].not_found.format(sent), "", "") == recorded.chunks[0]


@pytest.mark.parametrize(("case", "path"), [("chat_no_model", "/api/chat"), ("generate_empty_model", "/api/generate")])
def test_what_is_said_of_no_model(case: str, path: str) -> None:
    """Chat says 400 and generate 404, as recorded."""
    status, message = ENDPOINTS[path].missing_model
    assert (status, error_body(status, message, "", "")) == (CASES[case].status, CASES[case].chunks[0])


# -- endings ----------------------------------------------------------------------------------------------------------------------

ENDINGS = {
    "done": (line(response="a", done=False) + line(response="", **LAST), Ending(Ended.COMPLETE, extra_events=1)),
    "done at once": (line(response="", done=True, done_reason="load"), Ending(Ended.COMPLETE, extra_events=1)),
    "without its newline": (line(response="", **LAST)[:-1], Ending(Ended.COMPLETE, extra_events=1)),
    "an error": (
        line(response="a", done=False) + line(error="an error was encountered"),
        Ending(Ended.ERROR, "an error was encountered", 1),
    ),
    "an error that speaks of done": (line(error='"done":true'), Ending(Ended.ERROR, '"done":true', 1)),
    "too early": (line(response="a", done=False), Ending(Ended.UNFINISHED)),
    "too early, speaking of done": (line(response='{"done":true}', done=False), Ending(Ended.UNFINISHED)),
    "too early, speaking of an error": (line(response='{"error":"x"}', done=False), Ending(Ended.UNFINISHED)),
    "too early, speaking of durations": (line(response=',"total_duration":9', done=False), Ending(Ended.UNFINISHED)),
    "too early, in a tool call about it": (
        line(message={"tool_calls": [{"function": {"arguments": {"done": True}}}]}, done=False),
        Ending(Ended.UNFINISHED),
    ),
    "too early, in a tool call about durations": (
        line(message={"tool_calls": [{"function": {"arguments": {"a": 1, "total_duration": 9}}}]}, done=False),
        Ending(Ended.UNFINISHED),
    ),
    "done, with a tool call about it": (
        line(message={"tool_calls": [{"function": {"arguments": {"done": False}}}]}, **LAST),
        Ending(Ended.COMPLETE, extra_events=1),
    ),
    "with spaces": (b'{"response": "", "done": true, "eval_count": 3}\n', Ending(Ended.COMPLETE, extra_events=1)),
    "with spaces everywhere": (b'{ "response" : "", "done" : true }\r\n', Ending(Ended.COMPLETE, extra_events=1)),
    "with spaces, its done out of sight": (
        b'4, 5], "total_duration": 9, "eval_count": 3}\n',
        Ending(Ended.COMPLETE, extra_events=1),
    ),
    "with spaces, too early": (b'{"response": "\\"done\\": true", "done": false}\n', Ending(Ended.UNFINISHED)),
    "with spaces, and no error": (b'{"done": false, "error": null}\n', Ending(Ended.UNFINISHED)),
    "an error with spaces": (b'{ "error": "out of memory" }\n', Ending(Ended.ERROR, "out of memory", 1)),
    "with nothing": (b"", Ending(Ended.UNFINISHED)),
    "with no JSON": (b"Hello.\n", Ending(Ended.UNFINISHED)),
}


@pytest.mark.parametrize(("tail", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_endings(tail: bytes, expected: Ending) -> None:
    """An answer is whole with ``done: true`` in its last line."""
    assert ending(tail) == expected


@pytest.mark.parametrize("tokens", [10, 300, 500, 4000])
def test_a_last_line_longer_than_the_tail(tokens: int) -> None:
    """The last line of /api/generate holds the context, which stands behind ``done``: however long, the answer is whole."""
    meter = Meter(Framing.NDJSON)
    meter.feed(line(response="a", done=False), 0.0)
    last = {"done": True, "done_reason": "stop", "context": [12345] * tokens, "total_duration": 9, "eval_count": 3}
    meter.feed(line(model="x", created_at="2026-11-22T13:35:17Z", response="", **last), 0.0)
    assert len(meter.tail) <= KEEP_BYTES
    assert ending(meter.tail).ended is Ended.COMPLETE


MESSAGES = {
    "native": (b'{"error":"no"}', "no"),
    "openai": (b'{"error":{"message":"no","type":"api_error","param":null,"code":null}}\n', "no"),
    "anthropic": (b'{"type":"error","error":{"type":"api_error","message":"no"},"request_id":"r"}', "no"),
    "plain text": (b"404 page not found", "404 page not found"),
    "no text": (b"", ""),
    "another object": (b'{"detail":"no"}', '{"detail":"no"}'),
    "a list": (b'["error"]', '["error"]'),
    "an error without a message": (b'{"error":{"type":"x"}}', '{"error":{"type":"x"}}'),
    "a number": (b'{"error":5}', "5"),
    "no UTF-8": (b"\xff", "\ufffd"),
    "an endless one": (b"x" * 9000, "x" * 500),
}


@pytest.mark.parametrize(("body", "message"), MESSAGES.values(), ids=MESSAGES)
def test_the_message_of_an_error(body: bytes, message: str) -> None:
    """The text of an error is found in every dialect, and bounded."""
    assert message_of(body) == message


# -- last words -------------------------------------------------------------------------------------------------------------------


def test_failed() -> None:
    """A broken stream ends as Ollama itself would end it."""
    assert lines_of(failed(words())) == [{"error": "host gpu1 closed the connection"}]


@pytest.mark.parametrize(
    ("path", "empty"),
    [
        ("/api/generate", {"response": ""}),
        ("/api/chat", {"message": {"role": "assistant", "content": ""}}),
        ("/api/embed", {}),
    ],
)
def test_cancelled(path: str, empty: dict[str, object]) -> None:
    """A cancelled stream ends with ``done``, the reason, and the tokens that were counted."""
    (last,) = lines_of(ENDPOINTS[path].cancelled(words()))
    assert last == {
        "model": "SmolLM2",
        "created_at": "2026-11-22T13:35:17.199062Z",
        **empty,
        "done": True,
        "done_reason": "cancelled",
        "eval_count": 7,
    }


def test_cancelled_before_the_first_token() -> None:
    """Ollama leaves zeros out, so do we."""
    assert "eval_count" not in lines_of(cancelled(words(tokens=0), empty={}))[0]


@pytest.mark.parametrize("path", NATIVE)
def test_last_words_are_an_ending(path: str) -> None:
    """What we say at an end is read as one by our own rules."""
    endpoint = ENDPOINTS[path]
    assert endpoint.ending(endpoint.cancelled(words())).ended is Ended.COMPLETE
    assert endpoint.ending(endpoint.failed(words())) == Ending(Ended.ERROR, "host gpu1 closed the connection", 1)


@pytest.mark.parametrize("name", ["ünïcode", "a\nb", "\u2028", '"', "😀"])
def test_last_words_are_one_line_of_ascii(name: str) -> None:
    """Clients that split on other line ends than newline read them too."""
    for said in (failed(words(message=name)), cancelled(words(model=name), empty={})):
        assert said.isascii()
        assert said.count(b"\n") == 1
