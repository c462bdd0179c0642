"""What of prompts and answers goes into spans, when it is asked for: shaped, cut, redacted."""

import json
from typing import Any

import msgspec
import pytest

from gateway.telemetry.content import CUT, MESSAGES_MOST, REDACTED, Content

PLAIN = Content(100, ())


def raw(**fields: Any) -> dict[str, msgspec.Raw]:
    """The fields of a body."""
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}


def told(content: Content = PLAIN, **fields: Any) -> list[tuple[str, list[str]]]:
    """Roles and texts of the messages."""
    messages = json.loads(content.prompt(raw(**fields))["gen_ai.input.messages"])
    return [(one["role"], [part["content"] for part in one["parts"]]) for one in messages]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "a"}, [("user", ["a"])]),
        ({"input": ["a", "b"]}, [("user", ["a"]), ("user", ["b"])]),
        ({"messages": [{"role": "user", "content": "a"}]}, [("user", ["a"])]),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}],
                    }
                ]
            },
            [("user", ["a"])],
        ),
        ({"messages": [{"role": "tool", "content": None}]}, [("tool", [])]),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]}, [("user", ["a"])]),
        ({"messages": [7, {"role": 7}]}, [("7", [])]),
    ],
)
def test_prompts(fields: dict[str, Any], expected: Any) -> None:
    """Of every dialect, and odd ones."""
    assert told(**fields) == expected


def test_nothing_asked() -> None:
    """Says nothing."""
    assert PLAIN.prompt(raw(model="a", prompt="", messages=[])) == PLAIN.prompt({}) == {}


def test_systems() -> None:
    """Anthropic's and the responses' instructions stand apart."""
    for fields in (
        {"system": "be kind"},
        {"system": [{"type": "text", "text": "be kind"}]},
        {"instructions": "be kind"},
    ):
        parts = json.loads(PLAIN.prompt(raw(**fields))["gen_ai.system_instructions"])
        assert parts == [{"type": "text", "content": "be kind"}]


def test_tools() -> None:
    """What was called, with what; both kinds of arguments."""
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": "{}"}}, 7]
    messages = json.loads(
        PLAIN.prompt(raw(messages=[{"role": "assistant", "tool_calls": calls}]))["gen_ai.input.messages"]
    )
    assert messages[0]["parts"] == [
        {"type": "tool_call", "name": "f", "arguments": '{"a": 1}'},
        {"type": "tool_call", "name": "g", "arguments": "{}"},
    ]


def test_long_conversations() -> None:
    """Are told from their end."""
    messages = [{"role": "user", "content": str(number)} for number in range(MESSAGES_MOST + 5)]
    texts = [texts for _, texts in told(messages=messages)]
    assert (len(texts), texts[-1]) == (MESSAGES_MOST, [str(MESSAGES_MOST + 4)])


@pytest.mark.parametrize(("length", "kept"), [(9, 9), (10, 10), (11, 10), (20, 10), (21, 10), (1000, 10)])
def test_cutting(length: int, kept: int) -> None:
    """What was cut can be seen to be."""
    ((_, (text,)),) = told(Content(10, ()), prompt="x" * length)
    assert text == "x" * kept + (CUT if length > kept else "")


def test_redacting() -> None:
    """Comes before cutting: a secret that is cut would not be known any more."""
    ((_, (text,)),) = told(Content(12, ("sk-[0-9]{10}",)), prompt="key sk-0123456789 yes")
    assert text == "key [redacte" + CUT
    assert "012" not in text


def test_a_rule_that_takes_years() -> None:
    """Is stopped, and the message not told; the others are."""
    rules = Content(100, ("(a|aa)+$",))
    ((_, (text,)),) = told(rules, prompt="a" * 40 + "!")
    assert text == REDACTED
    ((_, (text,)),) = told(rules, prompt="no rule has this")
    assert text == "no rule has this"


@pytest.mark.parametrize(
    "said",
    [
        b'{"response":"a b","done":false}\n{"response":" c","done":true}\n',
        b'{"message":{"role":"assistant","content":"a b c","thinking":"x"},"done":true}\n',
        b'data: {"choices":[{"delta":{"content":"a b"}}]}\n\ndata: {"choices":[{"delta":{"content":" c"}}]}\n\ndata: [DONE]\n\n',
        b'{"choices":[{"message":{"content":"a b c"}}]}\n',
        b'data: {"choices":[{"text":"a b c"}]}\n\n',
        b'event: x\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a b c"}}\n\n',
        b'{"type":"message","content":[{"type":"text","text":"a b c"}]}',
        b'event: x\ndata: {"type":"response.output_text.delta","delta":"a b c"}\n\nevent: y\ndata: {"type":"response.completed","response":{"output":[]}}\n\n',
        b'{"output":[{"type":"message","content":[{"type":"output_text","text":"a b c"}]}]}',
        b'{"text":"a b c"}',
        b'{"response":"a b c"}\n{"response":"d',
    ],
)
def test_answers(said: bytes) -> None:
    """Of every dialect, streamed or whole, cut off or not."""
    (message,) = json.loads(PLAIN.answer(said)["gen_ai.output.messages"])
    assert message == {"role": "assistant", "parts": [{"type": "text", "content": "a b c"}]}


@pytest.mark.parametrize(
    "said", [b"", b"garbage", b'{"embeddings":[[1]]}', b"[1]\n[2]\n", b"\xff\n\xff\n", b"[" * 5000]
)
def test_answers_that_say_nothing(said: bytes) -> None:
    """Or that cannot be read."""
    assert PLAIN.answer(said) == {}
