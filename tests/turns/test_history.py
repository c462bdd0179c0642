"""What of a branch a model gets to see."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.messages import Message, Role
from gateway.turns.history import IMAGE_TOKENS, MESSAGE_TOKENS, Window, context_of, tokens_of
from tests.builders import TEXT
from tests.fleet.builders import loaded, snapshot, view

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def branch(*said: str, **more: Any) -> list[Message]:
    """A question, an answer, a question… each of so many letters."""
    roles = (Role.USER, Role.ASSISTANT)
    return [
        Message(
            seq=n, parent=n - 1 if n else None, role=roles[n % 2], content=text, created_at=NOW, updated_at=NOW, **more
        )
        for n, text in enumerate(said)
    ]


def seen(window: Window) -> list[str]:
    """What the model gets to see."""
    return [message["content"] for message in window.messages()]


def test_tokens() -> None:
    """By bytes: other scripts than Latin need more for a letter. Images and the template around each message count."""
    assert tokens_of("a" * 400) == 100 + MESSAGE_TOKENS
    assert tokens_of("я" * 400) == 200 + MESSAGE_TOKENS
    assert tokens_of("", 2) == 2 * IMAGE_TOKENS + MESSAGE_TOKENS
    assert tokens_of("\ud800") == MESSAGE_TOKENS


def test_the_newest_that_fit() -> None:
    """From the end, until there is no room; what is cut off begins with a question. The system prompt is always there."""
    window = Window(400, {}, "s" * 40)
    window.take(branch(*(letter * 400 for letter in "abcde")))
    assert window.full
    assert [text[0] for text in seen(window)] == ["s", "e"]
    whole = Window(4000, {}, "s" * 40)
    whole.take(branch(*(letter * 400 for letter in "abcde")))
    assert not whole.full
    assert "".join(text[0] for text in seen(whole)) == "sabcde"
    some = Window(4000, {"num_predict": 3650}, None)
    some.take(branch(*(letter * 4000 for letter in "abcde")))
    assert [text[0] for text in seen(some)] == ["e"]


def test_the_newest_stays_whatever_its_length() -> None:
    """A host cuts it by itself; there is room for at least one, always."""
    window = Window(100, {"num_predict": 10**9}, "s" * 4000)
    assert window.most == 1
    window.take(branch("a" * 4000, "b", "c" * 40_000))
    assert [text[0] for text in seen(window)] == ["s", "c"]


def test_part_by_part() -> None:
    """Taken in from the end in pieces, it is the same."""
    told = branch(*(letter * 40 for letter in "abcdefg"))
    window = Window(4000, {}, None)
    for start in (5, 2, 0):
        window.take(told[start : {5: 7, 2: 5, 0: 2}[start]])
    assert "".join(text[0] for text in seen(window)) == "abcdefg"


def test_what_failed_is_not_shown() -> None:
    """An answer without a word; what was stopped is shown as far as it came."""
    window = Window(4000, {}, None)
    window.take(branch("a", "", "b", "half"))
    assert seen(window) == ["a", "b", "half"]


def test_images_and_tools() -> None:
    """An image takes its room; calls keep what was thought before them, answers of tools their name."""
    one, two = branch("a", "b", images=["aGk="])
    window = Window(2 * IMAGE_TOKENS, {}, None)
    window.take([one, two])
    assert len(window.messages()) == 1
    call = {"function": {"name": "clock", "arguments": {}}}
    asked = Message(
        seq=0,
        parent=None,
        role=Role.ASSISTANT,
        content="",
        thinking="hm",
        tool_calls=[call],
        created_at=NOW,
        updated_at=NOW,
    )
    told = Message(seq=1, parent=0, role=Role.TOOL, name="clock", content="9", created_at=NOW, updated_at=NOW)
    tools = Window(4000, {}, None)
    tools.take([asked, told])
    assert tools.messages() == [
        {"role": "assistant", "content": "", "tool_calls": [call], "thinking": "hm"},
        {"role": "tool", "content": "9", "tool_name": "clock"},
    ]


@pytest.mark.parametrize(
    ("options", "pin", "context"),
    [({"num_ctx": 100}, "", 100), ({}, "", 8192), ({"num_ctx": 0}, "b", 16384), ({}, "c", 2048)],
)
def test_the_context(options: dict[str, Any], pin: str, context: int) -> None:
    """What is asked for, else that with which it is loaded where it may go, the smallest; else what is configured."""
    views = [view(name, holds=[loaded(context=tokens)]) for name, tokens in (("a", 8192), ("b", 16384), ("c", 0))]
    assert context_of(options, TEXT.upper(), pin, snapshot(*views, view("d")), 2048) == context
