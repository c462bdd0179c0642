"""What an answer says, read from its chunks: the text, what was thought before, the tools that are called. And what it became in the end."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from gateway.depth import too_deep
from gateway.errors import CorralError
from gateway.messages import CONTENT_MOST, Ending, MessageState, MessageUsage, Timings
from gateway.record import CancelSource, GenerationRecord, Outcome
from gateway.turns.asked import tool_calls

LOST = "a part of the answer came faster than it could be kept"
TOOL_CALLS_MOST = 128
_STOPPED_BY = (CancelSource.CLIENT, CancelSource.OPERATOR, CancelSource.ORPHAN)


class Piece(NamedTuple):
    """What one chunk says and what is thought in it."""

    content: str
    thinking: str


_NOTHING = Piece("", "")


class _Said(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    at: Any = None  # when, as the host wrote it


class _Line(msgspec.Struct, gc=False):
    message: _Said | None = None
    created_at: Any = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def _of_line(chunk: bytes) -> _Said | None:
    """One line of ``/api/chat``, or its whole answer."""
    line = _decode_line(chunk)
    if line.message is not None:
        line.message.at = line.created_at
    return line.message


def _of_event(chunk: bytes) -> _Said | None:
    """One event of ``/v1/chat/completions``, or its whole answer; of several choices the first."""
    data = chunk.strip().removeprefix(b"data:").strip()
    if data == b"[DONE]" or not (choices := _decode_event(data).choices):
        return None
    said = choices[0].delta or choices[0].message
    return None if said is None else _Said(said.content, said.reasoning, tool_calls(said.tool_calls))


_READ = {"/api/chat": _of_line, "/v1/chat/completions": _of_event}


class Spoken:
    """One answer of a path of chat, growing."""

    def __init__(self, path: str = "/api/chat") -> None:
        self._read = _READ[path]
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._length = 0
        self._thought: list[Any] = []  # when the first thought came, and the first word after it, else the last thought
        self.tool_calls: list[dict[str, Any]] = []
        self.lost = False  # chunks were dropped before they were read

    @property
    def content(self) -> str:
        """What is said so far."""
        return _joined(self._content)

    @property
    def thinking(self) -> str | None:
        """What was thought so far; None: nothing."""
        return _joined(self._thinking) or None

    def take(self, chunk: bytes) -> Piece:
        """One line or event, or a whole answer; what it says. What cannot be read says nothing."""
        try:
            said = self._read(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = None
        if said is None:
            return _NOTHING
        if said.thinking or (said.content and self._thought and not self._content):
            self._thought = [*self._thought[:1], said.at]
        self._add(self._content, said.content)
        self._add(self._thinking, said.thinking)
        calls = [call for call in said.tool_calls or () if not too_deep(call)]
        self.tool_calls += calls[: TOOL_CALLS_MOST - len(self.tool_calls)]
        return Piece(said.content or "", said.thinking or "")

    def _add(self, pieces: list[str], text: str | None) -> None:
        if text and self._length <= 2 * CONTENT_MOST:  # more is never kept
            pieces.append(text)
            self._length += len(text)

    def _thinking_seconds(self) -> float | None:
        """None: it did not think, or the host does not say when."""
        try:
            first, last = map(datetime.fromisoformat, self._thought)
            return max(0.0, (last - first).total_seconds())
        except (TypeError, ValueError):
            return None

    def ending(self, record: GenerationRecord) -> Ending:
        """What it has become, by the record of its generation."""
        state, error = _state(record)
        used, seconds = (
            record.usage,
            Timings(
                queue_seconds=record.queue_seconds,
                ttft_seconds=record.ttft_seconds,
                total_seconds=record.duration_seconds,
                load_seconds=record.usage.load_seconds or None,
                prefill_seconds=record.usage.prefill_seconds or None,
                decode_seconds=record.usage.decode_seconds or None,
                thinking_seconds=self._thinking_seconds(),
            ),
        )
        return Ending(
            state=state,
            content=self.content,
            thinking=self.thinking,
            tool_calls=self.tool_calls or None,
            error=error or (LOST if self.lost else None),
            host=record.host,
            usage=MessageUsage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
            if record.host
            else None,
            timings=seconds,
        )


def refused(error: CorralError) -> Ending:
    """An answer that could not begin."""
    if error.code == "cancelled":
        return Ending(state=MessageState.STOPPED, content="")
    return Ending(state=MessageState.ERROR, content="", error=error.message)


def _state(record: GenerationRecord) -> tuple[MessageState, str | None]:
    if record.outcome is Outcome.OK:
        return MessageState.DONE, None
    if record.cancelled_by in _STOPPED_BY:
        return MessageState.STOPPED, None
    return MessageState.ERROR, (record.reason or str(record.outcome))[:CONTENT_MOST]


def _joined(pieces: list[str]) -> str:
    """All pieces, which are one from then on."""
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""
