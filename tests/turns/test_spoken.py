"""Answers as they are read, and what becomes of them."""

import json

import msgspec
import pytest

from gateway.messages import CONTENT_MOST, MessageState
from gateway.record import CancelSource, Outcome, Usage
from gateway.turns.spoken import LOST, Spoken
from tests.telemetry.builders import record

LINES = [
    b'{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}\n',
    b'{"message":{"role":"assistant","content":"Be"},"done":false}\n',
    b"not JSON\n",
    b'{"message":{"role":"assistant","content":5},"done":false}\n',
    b'{"message":{"role":"assistant","content":"cause","tool_calls":[{"function":{"name":"f","arguments":{}}}]}}\n',
    b'{"error":"it broke"}\n',
    b'{"model":"x","message":{"role":"assistant","content":""},"done":true}\n',
]


def spoken() -> Spoken:
    """All lines."""
    made = Spoken()
    for line in LINES:
        made.take(line)
    return made


def test_lines() -> None:
    """What is said, thought and called; what cannot be read says nothing."""
    said = spoken()
    assert (said.content, said.thinking) == ("Because", "hm")
    assert said.tool_calls == [{"function": {"name": "f", "arguments": {}}}]
    assert Spoken().thinking is None


def test_a_call_without_a_bottom() -> None:
    """It is left out: what is kept must be told again. The others stay."""
    deep = "[" * 101 + "]" * 101
    said, event = Spoken(), Spoken("/v1/chat/completions")
    said.take(f'{{"message":{{"content":"x","tool_calls":[{{"a":{deep}}},{{"b":1}}]}}}}\n'.encode())
    assert (said.content, said.tool_calls) == ("x", [{"b": 1}])
    for levels in (101, 10_000):
        text = "[" * levels + "]" * levels
        call = msgspec.json.encode({"function": {"arguments": text}}).decode()
        event.take(f'data: {{"choices":[{{"delta":{{"content":"x","tool_calls":[{call}]}}}}]}}'.encode())
    assert event.tool_calls == [{"function": {"arguments": "[" * 10_000 + "]" * 10_000}}]


def test_it_is_bounded() -> None:
    """Somewhat more than is ever kept."""
    said = Spoken()
    for _ in range(6):
        said.take(b'{"message":{"content":"%b"}}\n' % (b"a" * (CONTENT_MOST // 2)))
    assert CONTENT_MOST < len(said.content) <= 3 * CONTENT_MOST


@pytest.mark.parametrize(
    ("outcome", "by", "reason", "state", "error"),
    [
        (Outcome.OK, None, "", MessageState.DONE, None),
        (Outcome.CANCELLED, CancelSource.CLIENT, "left", MessageState.STOPPED, None),
        (Outcome.CANCELLED, CancelSource.OPERATOR, "stop", MessageState.STOPPED, None),
        (Outcome.CANCELLED, CancelSource.ORPHAN, "nobody", MessageState.STOPPED, None),
        (Outcome.GATEWAY_ERROR, CancelSource.SHUTDOWN, "shut", MessageState.ERROR, "shut"),
        (Outcome.TIMEOUT, CancelSource.DEADLINE, "late", MessageState.ERROR, "late"),
        (Outcome.UPSTREAM_ERROR, None, "reset", MessageState.ERROR, "reset"),
        (Outcome.GATEWAY_ERROR, None, "", MessageState.ERROR, "gateway_error"),
    ],
)
def test_the_ending(
    outcome: Outcome, by: CancelSource | None, reason: str, state: MessageState, error: str | None
) -> None:
    """Somebody stopped it, or it broke off: by the record."""
    usage = Usage(input_tokens=7, output_tokens=2, load_seconds=1.0)
    ended = spoken().ending(record(outcome=outcome, cancelled_by=by, reason=reason, usage=usage, host="gpu1"))
    assert (ended.state, ended.error, ended.content, ended.host) == (state, error, "Because", "gpu1")
    assert ended.usage is not None
    assert msgspec.structs.astuple(ended.usage) == (7, 2)
    assert ended.timings is not None
    assert (ended.timings.load_seconds, ended.timings.prefill_seconds) == (1.0, None)


def line(at: object, content: str = "", thinking: str = "") -> bytes:
    """As a host writes it at that time."""
    return json.dumps({"created_at": at, "message": {"content": content, "thinking": thinking}}).encode()


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (
            [
                line("2026-11-22T13:35:16.5Z", thinking="h"),
                line("2026-11-22T13:35:18.587851405Z", thinking="m"),
                line("2026-11-22T13:35:20.25Z", "Be"),
                line("2026-11-22T13:35:29Z", "cause"),
            ],
            3.75,
        ),
        ([line("2026-11-22T13:35:16Z", thinking="h"), line("2026-11-22T13:35:17Z", thinking="m")], 1.0),
        ([line("2026-11-22T13:35:16Z", thinking="h")], None),
        ([line("2026-11-22T13:35:16Z", "Be"), line("2026-11-22T13:35:17Z", "cause")], None),
        ([line("yesterday", thinking="h"), line(5, "Be")], None),
        ([line("2026-11-22T13:35:16", thinking="h"), line("2026-11-22T13:35:18Z", "Be")], None),
        ([line("2026-11-22T13:35:16Z", thinking="h"), line("2026-11-22T13:35:10Z", "Be")], 0.0),
    ],
    ids=["thought", "thinks still", "one thought", "said at once", "no times", "no zone", "backwards"],
)
def test_how_long_it_thought(lines: list[bytes], seconds: float | None) -> None:
    """By the host's clock, from the first thought to the first word."""
    said = Spoken()
    for one in lines:
        said.take(one)
    timings = said.ending(record(outcome=Outcome.OK)).timings
    assert timings is not None
    assert timings.thinking_seconds == seconds


def test_what_was_lost_is_said() -> None:
    """An answer with a gap is not taken for whole."""
    said = spoken()
    said.lost = True
    assert said.ending(record(outcome=Outcome.OK)).error == LOST


def test_events() -> None:
    """OpenAI's, one by one or whole: text, reasoning, tools with their arguments read."""
    said = Spoken("/v1/chat/completions")
    call = b'{"index":0,"id":"1","function":{"name":"f","arguments":"{\\"a\\":1}"}}'
    for event in (
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"hm"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"Be"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"cause","tool_calls":[%b]}}]}\n\n' % call,
        b'data: {"choices":[],"usage":{}}\n\n',
        b"data: [DONE]\n\n",
        b": nothing\n\n",
    ):
        said.take(event)
    assert (said.content, said.thinking) == ("Because", "hm")
    assert said.tool_calls == [{"index": 0, "id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]
    whole = Spoken("/v1/chat/completions")
    whole.take(b'{"choices":[{"message":{"role":"assistant","content":"Yes"}},{"message":{"content":"No"}}]}\n')
    assert whole.content == "Yes"
