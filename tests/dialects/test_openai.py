"""OpenAI's dialect: errors, endings (Ollama swallows failures in the middle of a stream), and last words."""

import json
from typing import Any

import pytest

from gateway.dialects.ending import Ended, Ending
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.openai import error_body
from tests.contract.cases import CASES
from tests.dialects.streams import STREAMS, event, events_of, words

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.mark.parametrize("case", ["v1_chat_404", "v1_chat_bad"])
def test_errors_as_ollama_spells_them(case: str) -> None:
    """An error is an object with message, type, param and code, as recorded."""
    recorded = CASES[case].chunks[0]
    assert isinstance(recorded, bytes)
    error = json.loads(recorded)["error"]
    assert error_body(CASES[case].status, error["message"], "bad_request", "g1").rstrip() == recorded.rstrip()


@pytest.mark.parametrize(
    ("status", "code", "kind", "told"),
    [
        (400, "bad_request", "invalid_request_error", None),
        (404, "model_not_found", "not_found_error", None),
        (413, "too_large", "api_error", "too_large"),
        (429, "rate_limit_exceeded", "rate_limit_error", "rate_limit_exceeded"),
        (429, "insufficient_quota", "rate_limit_error", "insufficient_quota"),
        (499, "cancelled", "api_error", "cancelled"),
        (500, "internal", "api_error", None),
        (502, "hosts_failed", "api_error", "hosts_failed"),
        (503, "no_host", "api_error", "no_host"),
        (503, "queue_full", "api_error", "queue_full"),
        (503, "shutting_down", "api_error", "shutting_down"),
        (504, "deadline", "api_error", "deadline"),
    ],
)
def test_errors(status: int, code: str, kind: str, told: str | None) -> None:
    """The code is null where Ollama could have said the same, and ours where it could not."""
    body = error_body(status, "no", code, "g1")
    assert json.loads(body) == {"error": {"message": "no", "type": kind, "param": None, "code": told}}


# -- endings ----------------------------------------------------------------------------------------------------------------------


def chunk(model: str = "x", **fields: Any) -> bytes:
    """One chunk of a chat."""
    fixed = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    return event(**fixed, model=model, system_fingerprint="fp_ollama", **fields)


def delta(text: str = "a", model: str = "x") -> bytes:
    """A token."""
    return chunk(model, choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


FINISH = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = chunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
EMPTY = "the host ended the stream with an empty chunk: its runner failed"
FAILED = "the host ended the stream with an error event"

CHAT_ENDINGS = {
    "done": (delta() + FINISH + DONE, Ending(Ended.COMPLETE, extra_events=2)),
    "done with usage": (delta() + FINISH + USAGE + DONE, Ending(Ended.COMPLETE, extra_events=3)),
    "done by itself": (DONE, Ending(Ended.COMPLETE, extra_events=2)),
    "a swallowed error": (delta() + delta("", model=""), Ending(Ended.ERROR, EMPTY, 1)),
    "an error event": (delta() + event(error={"message": "no"}), Ending(Ended.ERROR, FAILED, 1)),
    "too early": (delta(), Ending(Ended.UNFINISHED)),
    "after the finish chunk": (delta() + FINISH, Ending(Ended.UNFINISHED)),
    "too early, speaking of the end": (delta("data: [DONE]\n\n"), Ending(Ended.UNFINISHED)),
    "too early, speaking of no model": (delta('"model":"",'), Ending(Ended.UNFINISHED)),
    "with nothing": (b"", Ending(Ended.UNFINISHED)),
}


@pytest.mark.parametrize(("tail", "expected"), CHAT_ENDINGS.values(), ids=CHAT_ENDINGS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_endings(path: str, tail: bytes, expected: Ending) -> None:
    """An answer is whole with ``[DONE]``; everything else that looks like a clean end is none."""
    assert ENDPOINTS[path].ending(tail) == expected


def response(kind: str, **fields: Any) -> bytes:
    """One event of /v1/responses, its type last as Ollama writes it."""
    return event(f"response.{kind}", **fields, sequence_number=4, type=f"response.{kind}")


RESPONSES_ENDINGS = {
    "completed": (response("completed", response={"status": "completed"}), Ended.COMPLETE),
    "incomplete": (response("incomplete", response={"status": "incomplete"}), Ended.COMPLETE),
    "failed": (response("failed", response={"status": "failed"}), Ended.ERROR),
    "an error": (event("error", code="x", message="no", sequence_number=4, type="error"), Ended.ERROR),
    "too early": (response("output_text.delta", delta="a"), Ended.UNFINISHED),
    "too early, speaking of it": (response("output_text.delta", delta='"response.completed"'), Ended.UNFINISHED),
    "with nothing": (b"", Ended.UNFINISHED),
}


@pytest.mark.parametrize(("tail", "ended"), RESPONSES_ENDINGS.values(), ids=RESPONSES_ENDINGS)
def test_endings_of_responses(tail: bytes, ended: Ended) -> None:
    """A response is whole when it says that it is completed, or incomplete."""
    assert ENDPOINTS[RESPONSES].ending(tail).ended is ended


# -- last words -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_failed(path: str) -> None:
    """A broken stream ends with an error event, and no ``[DONE]``."""
    ((name, data),) = events_of(ENDPOINTS[path].failed(words()))
    assert (name, data["error"]) == (
        "",
        {"message": "host gpu1 closed the connection", "type": "api_error", "param": None, "code": "host_failed"},
    )


@pytest.mark.parametrize(
    ("path", "case", "kind", "choice"),
    [
        (CHAT, "v1_chat_stream", "chat.completion.chunk", {"index": 0, "delta": {}, "finish_reason": "cancelled"}),
        (
            COMPLETIONS,
            "v1_completions_stream_usage",
            "text_completion",
            {"text": "", "index": 0, "finish_reason": "cancelled"},
        ),
    ],
)
def test_cancelled(path: str, case: str, kind: str, choice: dict[str, Any]) -> None:
    """A cancelled stream ends with a finish chunk of the same id, and ``[DONE]``."""
    begun = STREAMS[case][:400].rpartition(b"\n\n")[0] + b"\n\n"
    (_, last), (_, done) = events_of(ENDPOINTS[path].cancelled(words(begun)))
    assert done == "[DONE]"
    assert last == {
        "id": events_of(begun)[0][1]["id"],
        "object": kind,
        "created": 1795354517,
        "model": "SmolLM2",
        "system_fingerprint": "fp_ollama",
        "choices": [choice],
    }


@pytest.mark.parametrize(("path", "id_"), [(CHAT, "chatcmpl-0192f3a4b5c6"), (COMPLETIONS, "cmpl-0192f3a4b5c6")])
def test_cancelled_before_there_was_an_id(path: str, id_: str) -> None:
    """Without one of the host's, the id is the generation's."""
    assert events_of(ENDPOINTS[path].cancelled(words()))[0][1]["id"] == id_


@pytest.mark.parametrize(
    ("say", "status", "error", "details"),
    [
        ("failed", "failed", {"code": "server_error", "message": "host gpu1 closed the connection"}, None),
        ("cancelled", "incomplete", None, {"reason": "cancelled"}),
    ],
)
def test_last_words_of_responses(say: str, status: str, error: object, details: object) -> None:
    """They are numbered on from the last event that was seen."""
    seen = response("output_text.delta", delta='"sequence_number":99')
    ((name, data),) = events_of(getattr(ENDPOINTS[RESPONSES], say)(words(seen)))
    assert name == data["type"] == f"response.{status}"
    assert data["sequence_number"] == 5
    assert data["response"]["status"] == status
    assert (data["response"]["error"], data["response"]["incomplete_details"]) == (error, details)


@pytest.mark.parametrize("say", ["failed", "cancelled"])
def test_last_words_of_responses_have_its_id(say: str) -> None:
    """It is that of the first event, however long ago that was: clients refuse another."""
    whole = STREAMS["v1_responses_stream"]
    begun = whole[: whole.index(b"event: response.content_part.added")]
    seen = begun + response("output_text.delta", delta="a") * 100
    ((_, data),) = events_of(getattr(ENDPOINTS[RESPONSES], say)(words(seen)))
    assert data["response"]["id"] == events_of(begun)[0][1]["response"]["id"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
def test_last_words_are_an_ending(path: str) -> None:
    """What we say at an end is read as one by our own rules."""
    endpoint = ENDPOINTS[path]
    assert endpoint.ending(endpoint.cancelled(words())).ended is Ended.COMPLETE
    assert endpoint.ending(endpoint.failed(words())).ended is Ended.ERROR
