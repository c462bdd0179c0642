"""Open WebUI's export: a tree of messages by id, in whatever order."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.messages import MessageState, Role
from gateway.openwebui import openwebui

NOW = datetime(2026, 11, 22, tzinfo=UTC)
THOUGHT = (
    '<details type="reasoning" done="true" duration="2">\n<summary>Thought for 2 seconds</summary>\n'
    "&gt; Light &amp; air.\n&gt; Then blue.\n</details>\nBecause of Rayleigh."
)


def said(id_: str, parent: str | None, role: str, content: str | None, at: float | None, **rest: Any) -> dict[str, Any]:
    """One message, with all that Open WebUI writes beside."""
    return {"id": id_, "parentId": parent, "childrenIds": [], "role": role, "content": content, "timestamp": at} | rest


def chat(*messages: dict[str, Any], current: str | None = None, **rest: Any) -> dict[str, Any]:
    """An entry of the list."""
    history = {"messages": {message["id"]: message for message in messages}, "currentId": current}
    return {"id": "x", "user_id": "u", "chat": {"models": ["llama3.2:1b"], "history": history, "tags": []}} | rest


QUESTION = said("q", None, "user", "Why is the sky blue?", 1_760_000_000)
ANSWERS = (
    said("b", "q", "assistant", "Because.", 1_760_000_009, model="llama3.2:1b", done=True),
    said("a", "q", "assistant", THOUGHT, 1_760_000_005, model="qwen3:4b", done=True),
)


def test_a_chat() -> None:
    """Branches, models and times; what was thought is put apart."""
    entry = chat(
        *ANSWERS, QUESTION, current="a", title="Sky", pinned=True, created_at=1_759_999_999, updated_at=1_760_000_010
    )
    read = openwebui(entry, "session 0", NOW)
    assert [(one.seq, one.parent, one.role, one.model) for one in read.messages] == [
        (0, None, Role.USER, None),
        (1, 0, Role.ASSISTANT, "qwen3:4b"),
        (2, 0, Role.ASSISTANT, "llama3.2:1b"),
    ]
    assert (read.messages[1].thinking, read.messages[1].content) == ("Light & air.\nThen blue.", "Because of Rayleigh.")
    assert read.messages[2].created_at == datetime.fromtimestamp(1_760_000_009, UTC)
    session = read.session
    assert (session.title, session.model, session.pinned, session.archived, session.leaf) == (
        "Sky",
        "llama3.2:1b",
        True,
        False,
        1,
    )
    assert (session.created_at.timestamp(), session.updated_at.timestamp()) == (1_759_999_999, 1_760_000_010)


def test_what_is_missing() -> None:
    """Times, titles, the last message: one goes on without."""
    read = openwebui(chat(said("q", None, "user", None, None)), "session 0", NOW)
    assert (read.session.title, read.session.leaf, read.session.created_at) == ("", 0, NOW)
    assert (read.messages[0].content, read.messages[0].created_at) == ("", NOW)
    assert openwebui(chat(), "session 0", NOW).messages == []


def test_a_parent_that_is_not_there() -> None:
    """Its child begins a branch of its own."""
    read = openwebui(chat(QUESTION, said("l", "lost", "user", "Hello?", 1)), "session 0", NOW)
    assert [(one.content, one.parent) for one in read.messages] == [("Hello?", None), ("Why is the sky blue?", None)]


def test_pictures_and_errors() -> None:
    """Pictures that are in it come along; an answer that failed says why."""
    files = [
        {"type": "image", "url": "data:image/png;base64,aGk="},
        {"type": "image", "url": "https://example.com/a.png"},
        {"type": "file", "url": "data:image/png;base64,bm8="},
        "strange",
    ]
    failed = said("e", "q", "assistant", "", 1_760_000_001_000, error={"content": "no such model"})
    read = openwebui(chat(QUESTION | {"files": files}, failed), "session 0", NOW)
    assert read.messages[0].images == ["aGk="]
    assert (read.messages[1].state, read.messages[1].error) == (MessageState.ERROR, "no such model")
    assert read.messages[1].created_at == datetime.fromtimestamp(1_760_000_001, UTC)


@pytest.mark.parametrize("content", ['<details type="reasoning">', '<details type="reasoning"></summary>x', "plain"])
def test_what_only_looks_like_thinking(content: str) -> None:
    """Is left as it is."""
    (message,) = openwebui(chat(QUESTION | {"content": content}), "session 0", NOW).messages
    assert (message.thinking, message.content) == (None, content)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"chat": {}}, "chat.history is missing"),
        (chat(said("q", None, "god", "", 1)), "session 3: .*role cannot be 'god'"),
        (chat(said("a", "b", "user", "", 1), said("b", "a", "user", "", 1)), "its messages are each other's parents"),
        (chat(QUESTION | {"content": "x" * 1_000_001}), "message 0 has over 1000000 characters"),
    ],
)
def test_what_cannot_be_read(entry: dict[str, Any], words: str) -> None:
    """The words say where."""
    with pytest.raises(BadRequest, match=words):
        openwebui(entry, "session 3", NOW)
