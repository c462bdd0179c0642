"""How urgent a request is: what its caller says, and what its body tells."""

import json
from typing import Any

import pytest

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.read import read
from gateway.dialects.request import Priority
from gateway.dialects.urgency import HEAD_BYTES, MESSAGES_BYTES, PROMPTS, Background, deadline_of, priority_of
from gateway.errors import BadRequest
from tests.builders import AUDIO, PATHS, TEXT, call

TITLE = PROMPTS[0] + ", 3-5 word title with an emoji summarizing the chat history.\n### Guidelines:\n- …"
HISTORY = '\n### Chat History:\n<chat_history>\nUSER: why is the sky blue?\nASSISTANT: "Rayleigh"\n</chat_history>'


def user(content: Any) -> dict[str, Any]:
    """A message of a user."""
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, Any]:
    """A system prompt."""
    return {"role": "system", "content": content}


def priority(path: str, background: Background | None = None, priority: Priority | None = None, **fields: Any) -> str:
    """What is read of a body with these fields."""
    body = json.dumps({"model": TEXT} | fields).encode()
    return read(ENDPOINTS[path], body, "g1", background=background or Background(), priority=priority).priority.name


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_of_a_chat_ui(path: str, stream: bool, prompt: str) -> None:
    """In one message of a user, streamed or not, in any dialect, with a system prompt or without."""
    asked = user(prompt + HISTORY)
    assert priority(path, messages=[asked], stream=stream) == "BACKGROUND"
    assert priority(path, messages=[system("Be brief." * 50), asked], stream=stream) == "BACKGROUND"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"messages": [user("Why is the sky blue?")]}, id="a question"),
        pytest.param({"messages": [user(TITLE), user("again")]}, id="two messages"),
        pytest.param({"messages": [user(TITLE), {"role": "assistant", "content": "Sky"}]}, id="an answer"),
        pytest.param({"messages": [user("What is this? " + TITLE)]}, id="a prompt that is talked about"),
        pytest.param({"messages": [system(TITLE), user("hello")]}, id="a system prompt"),
        pytest.param(
            {"messages": [user("### Task:\nRespond to the user query using the provided context")]},
            id="an answer from documents",
        ),
        pytest.param({"messages": [user([{"type": "text", "text": TITLE}])]}, id="in parts"),
        pytest.param({"messages": [system("x" * HEAD_BYTES), user(TITLE)]}, id="far behind a system prompt"),
        pytest.param({"messages": [user(TITLE + "x" * MESSAGES_BYTES)]}, id="huge"),
        pytest.param({"messages": [TITLE]}, id="no messages"),
        pytest.param({"messages": TITLE}, id="no list"),
        pytest.param({"messages": [{"role": 1, "content": TITLE}]}, id="no role"),
        pytest.param({"messages": None}, id="null"),
        pytest.param({"suffix": "}"}, id="a suffix that means nothing here"),
    ],
)
def test_what_somebody_waits_for(fields: dict[str, Any]) -> None:
    """Or what cannot be read: a host will say so."""
    assert priority("/api/chat", **fields) == "NORMAL"


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
def test_completions_of_code(path: str) -> None:
    """They have something behind the cursor."""
    assert priority(path, prompt="def f(", suffix=")") == "BACKGROUND"
    for nothing in ("", None):
        assert priority(path, prompt="def f(", suffix=nothing) == "NORMAL"


@pytest.mark.parametrize("beginning", ["Fasse das Gespräch", "Озаглавь", '"Title"', "### Task:\nName it"])
@pytest.mark.parametrize("plainly", [True, False], ids=["ASCII", "UTF-8"])
def test_other_prompts(beginning: str, plainly: bool) -> None:
    """Can be named, whatever is in them and however JSON writes it; the known ones stay."""
    background = Background([beginning])
    body = {"model": TEXT, "messages": [user(beginning + " …")]}
    written = json.dumps(body, ensure_ascii=plainly).encode()
    assert read(ENDPOINTS["/api/chat"], written, "g1", background=background).priority is Priority.BACKGROUND
    assert priority("/api/chat", background, messages=[user(TITLE)]) == "BACKGROUND"
    assert priority("/api/chat", background, messages=[user("hello")]) == "NORMAL"


def test_the_caller_has_the_last_word() -> None:
    """Whatever the body looks like; and without rules all are alike."""
    for said in Priority:
        assert priority("/api/chat", priority=said, messages=[user(TITLE)]) == said.name
    body = call("/api/chat", prompt=TITLE).body
    assert read(ENDPOINTS["/api/chat"], body, "g1").priority is Priority.NORMAL


@pytest.mark.parametrize("path", PATHS)
def test_ordinary_requests(path: str) -> None:
    """Are normal, on every path."""
    sent = call(path, AUDIO if "audio" in path else "")
    request = read(ENDPOINTS[path], sent.body, "g1", sent.headers["Content-Type"], background=Background())
    assert request.priority is Priority.NORMAL


def test_priorities_in_words() -> None:
    """In any case; what is none of them is told the three."""
    assert [priority_of(word) for word in ("interactive", "Normal", " BACKGROUND ")] == list(Priority)
    with pytest.raises(BadRequest, match=r"'urgent'.*interactive, normal or background"):
        priority_of("urgent")


def test_deadlines() -> None:
    """Seconds, in any way that they are written."""
    assert [deadline_of(said) for said in ("5", " 0.25 ", "1e2", "86400")] == [5.0, 0.25, 100.0, 86400.0]
    for said in ("", "5s", "0", "-1", "nan", "inf", "86400.1"):
        with pytest.raises(BadRequest, match="more than 0 and at most 86400"):
            deadline_of(said)


def test_who_only_loads_has_no_deadline() -> None:
    """A load takes as long as it takes."""
    for prompt, seconds in (("", 0.0), ("Why?", 5.0)):
        body = call("/api/generate", prompt=prompt).body
        assert read(ENDPOINTS["/api/generate"], body, "g1", deadline_seconds=5.0).deadline_seconds == seconds
