"""Sessions that leave and come back: what is read, what is refused, and how a reader sees it."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gateway.errors import BadRequest, TooLarge
from gateway.messages import MESSAGES_MOST, Message, MessageState, Role, Session
from gateway.transcripts import SESSIONS_MOST, Transcript, loaded, markdown, own

AT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


def message(seq: int, parent: int | None, content: str = "", **rest: Any) -> Message:
    """One of a session."""
    role = rest.pop("role", Role.ASSISTANT if seq % 2 else Role.USER)
    return Message(seq=seq, parent=parent, role=role, content=content, created_at=AT, updated_at=AT, **rest)


SESSION = Session(
    id="s1",
    kind="chat",
    title="The sky",
    model="llama3.2:1b",
    host=None,
    system="Be brief.\nBe kind.",
    options={"seed": 1},
    settings=None,
    pinned=True,
    archived=False,
    leaf=1,
    messages=3,
    running="g1",
    created_at=AT,
    updated_at=AT,
)
MESSAGES = [message(0, None, "Why?"), message(1, 0, "So."), message(2, 0, "Thus.", state=MessageState.STREAMING)]


def entry(**changes: Any) -> Any:
    """An export as JSON, but for ``changes`` to its messages."""
    whole = json.loads(msgspec.json.encode(Transcript(session=SESSION, messages=MESSAGES)))
    whole["messages"] = [row | changes for row in whole["messages"]] if changes else whole["messages"]
    return whole


def test_our_own() -> None:
    """Everything but the id and who wrote to it; what streamed then does not any more."""
    read = own(entry(), "session 0")
    assert (read.session.title, read.session.system, read.session.options) == ("The sky", SESSION.system, {"seed": 1})
    assert (read.session.pinned, read.session.leaf, read.session.created_at) == (True, 1, AT)
    assert read.messages[:2] == MESSAGES[:2]
    assert read.messages[2].state is MessageState.STOPPED


def test_numbers_are_made_anew() -> None:
    """Without gaps, in the same order; the leaf goes with them."""
    whole = entry()
    whole["messages"] = [
        json.loads(msgspec.json.encode(one)) for one in (message(12, 7), message(4, None), message(7, 4))
    ]
    whole["session"]["leaf"] = 7
    read = own(whole, "session 0")
    assert [(one.seq, one.parent) for one in read.messages] == [(0, None), (1, 0), (2, 1)]
    assert read.session.leaf == 1


def test_without_messages() -> None:
    """An empty session is one as well."""
    read = own(entry() | {"messages": []}, "session 0")
    assert (read.messages, read.session.leaf) == ([], None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role": "god"}, r"session 3: messages\[0\].role cannot be 'god'"),
        ({"content": 1}, r"messages\[0\].content must be a text, not a whole number"),
        ({"content": "x" * 1_000_001}, "must have at most 1000000 characters"),
        ({"seq": 2**31}, "must be at most 2147483647"),
        ({"seq": 0}, "session 3: there are two messages 0"),
        ({"parent": 9}, "message 0 has the parent 9, which is not before it"),
        ({"created_at": "2026-11-22T10:30:00"}, "Expected `datetime` with a timezone"),
        ({"images": ["x"] * 17}, "must have at most 16 entries"),
    ],
)
def test_what_cannot_be_read(changes: dict[str, Any], words: str) -> None:
    """The words say where."""
    with pytest.raises(BadRequest, match=words):
        own(entry(**changes), "session 3")


def test_a_parent_that_comes_later() -> None:
    """Would be a circle."""
    whole = entry()
    whole["messages"][0]["parent"] = 1
    with pytest.raises(BadRequest, match="message 0 has the parent 1"):
        own(whole, "session 0")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000], ids=["empty", "cut", "bytes", "nan", "deep"]
)
def test_what_is_no_json(body: bytes) -> None:
    """Of whatever kind."""
    with pytest.raises(BadRequest, match="the import is no JSON"):
        loaded(body)


def test_too_many() -> None:
    """Sessions at a time, messages of a session."""
    assert loaded(b'{"a": 1}') == [{"a": 1}]
    with pytest.raises(TooLarge, match="the import has 2001 sessions; 2000 at a time"):
        loaded(b"[" + b"1," * SESSIONS_MOST + b"1]")
    whole = entry()
    whole["messages"] = [whole["messages"][0] | {"seq": seq} for seq in range(MESSAGES_MOST + 1)]
    with pytest.raises(TooLarge, match="session 0 has 10001 messages"):
        own(whole, "session 0")


def test_markdown() -> None:
    """A branch as a reader likes it."""
    answer = message(
        1,
        0,
        "So.\n",
        thinking="Hm.",
        model="llama3.2:1b",
        host="gpu1",
        state=MessageState.ERROR,
        error="host gpu1\nbroke off",
    )
    question = message(0, None, "Why?", images=["aGk="])
    called = message(2, 1, "", role=Role.TOOL, name="look", tool_calls=[{"где": 1}])
    assert markdown(SESSION, [question, answer, called]) == (
        "# The sky\n\n"
        "*llama3.2:1b · begun 2026-11-22 10:30 UTC · last written to 2026-11-22 10:30 UTC*\n\n"
        "> Be brief.\n> Be kind.\n\n"
        "## User\n\n*Images: 1*\n\nWhy?\n\n"
        "## Assistant · llama3.2:1b · gpu1\n\n"
        "<details>\n<summary>Thinking</summary>\n\nHm.\n\n</details>\n\nSo.\n\n*error: host gpu1 broke off*\n\n"
        '## look\n\n~~~~json\n[\n  {\n    "где": 1\n  }\n]\n~~~~\n'
    )
    untitled = msgspec.structs.replace(SESSION, title=" ", model=None, system=None)
    assert markdown(untitled, []).startswith("# Untitled\n\n*begun")
