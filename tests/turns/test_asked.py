"""What plain chats ask, and where in a session it belongs."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gateway.messages import IMAGES_MOST, Message, NewMessage, Role
from gateway.turns.asked import asked, continued, tool_calls

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def body(*messages: dict[str, Any]) -> bytes:
    """Of a chat."""
    return json.dumps({"model": "m", "messages": messages}).encode()


def test_native_messages() -> None:
    """As they are; system prompts are left out, wherever they stand."""
    call = {"function": {"name": "clock", "arguments": {"zone": "utc"}}}
    told = asked(
        body(
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "What is it?", "images": ["aGk="]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_name": "clock", "content": "9"},
        )
    )
    assert told == [
        NewMessage(content="What is it?", images=["aGk="]),
        NewMessage(content="", role=Role.ASSISTANT, tool_calls=[call]),
        NewMessage(content="9", role=Role.TOOL, name="clock"),
    ]
    assert asked(b"{}") == []


def test_openai_messages() -> None:
    """Contents in parts are joined, images taken out of their urls, arguments of tools read."""
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": "https://example.com/a.png"},
        {"type": "text", "text": "this?"},
    ]
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    told = asked(
        body(
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        )
    )
    assert told[0] == NewMessage(content="What is\nthis?", images=["aGk="])
    assert told[1].tool_calls == [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]


def test_strange_tool_calls() -> None:
    """They stay as they are."""
    strange: list[dict[str, Any]] = [
        {"x": 1},
        {"function": 5},
        {"function": {"arguments": "{"}},
        {"function": {"arguments": {}}},
    ]
    assert tool_calls(strange) == strange
    assert tool_calls(None) == []


@pytest.mark.parametrize(
    "sent",
    [
        body({"role": "nobody", "content": "?"}),
        body({"role": "user", "content": 5}),
        body({"role": "user", "content": "a" * 1_000_001}),
        body({"role": "user", "content": "a", "images": ["aGk="] * (IMAGES_MOST + 1)}),
        body({"role": "assistant", "tool_calls": [{"function": {"arguments": "[" * 101 + "]" * 101}}]}),
        b'{"messages": 5}',
    ],
)
def test_what_cannot_be_kept(sent: bytes) -> None:
    """Roles, contents and lengths that no session has."""
    with pytest.raises((ValueError, msgspec.DecodeError)):
        asked(sent)


@pytest.mark.parametrize(
    ("kept", "sent", "parent", "new"),
    [
        ("", "q", None, "q"),
        ("qa", "qaQ", 1, "Q"),
        ("qaQA", "qaQ", 2, ""),
        ("qaQA", "qaX", 1, "X"),
        ("qaQA", "qxQ", 0, "xQ"),
        ("qaQA", "QAz", 3, "z"),
        ("qaQA", "Az", 3, "z"),
        ("qaQA", "z", 3, "z"),
        ("qaQA", "xyz", 3, "xyz"),
        ("qaqa", "qaz", 1, "z"),
    ],
)
def test_where_it_belongs(kept: str, sent: str, parent: int | None, new: str) -> None:
    """It goes on where the histories part; who sends only the last messages goes on at the end. Blanks around a text do not matter."""
    branch = [
        Message(seq=n, parent=n - 1 if n else None, role=Role.USER, content=text, created_at=NOW, updated_at=NOW)
        for n, text in enumerate(kept)
    ]
    found, rest = continued(branch, [NewMessage(content=f" {text}\n") for text in sent])
    assert (found, "".join(message.content.strip() for message in rest)) == (parent, new)


def test_who_speaks_matters() -> None:
    """The same words of somebody else are other words."""
    branch = [Message(seq=0, parent=None, role=Role.USER, content="hi", created_at=NOW, updated_at=NOW)]
    assert continued(branch, [NewMessage(content="hi", role=Role.ASSISTANT)])[0] == 0
    assert len(continued(branch, [NewMessage(content="hi", role=Role.ASSISTANT)])[1]) == 1
