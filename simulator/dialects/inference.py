"""What the three dialects have in common: the request as a host understands it, and the parts of an answer."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from simulator.refusal import Refusal
from simulator.text import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One request, whichever dialect it came in.

    `load`: nothing to answer, only the model wanted in memory (or out of it, with keep_alive 0). `options` are unchecked.
    `top_logprobs` None means no logprobs. `tools` are (name, parameters) pairs; `inputs` are the texts to embed.
    """

    model: str
    prompt: list[int]
    stream: bool
    kind: Literal["generate", "chat", "embed", "embeddings"]
    load: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    shift: bool = True
    keep_alive: float | None = None
    think: bool | None = None
    must_think: bool = True
    tools: Sequence[tuple[str, dict[str, Any]]] = ()
    needs: tuple[str, ...] = ()
    as_json: bool = False
    raw: bool = False
    top_logprobs: int | None = None
    inputs: Sequence[list[int]] = ()
    dimensions: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token: its piece of text, whether it belongs to the thinking, its logprobs when asked for."""

    piece: Piece
    thinking: bool = False
    logprobs: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model wants made."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a generation ended. Durations are nanoseconds; `context` holds all tokens, or None when raw."""

    reason: Literal["stop", "length", "load", "unload"]
    total_duration: int = 0
    load_duration: int = 0
    prompt_tokens: int = 0
    prompt_duration: int = 0
    output_tokens: int = 0
    output_duration: int = 0
    context: list[int] | None = None
    tool_calls: Sequence[ToolCall] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """A whole answer: its media type and its bytes."""

    media_type: str
    data: bytes


class Answer(ABC):
    """Says one answer of text in one dialect. Each item of a returned list is sent as one HTTP chunk."""

    stream_type: ClassVar[str] = "text/event-stream"
    stream_headers: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def token(self, token: Token) -> list[bytes]:
        """A token of a streamed answer."""

    @abstractmethod
    def last(self, done: Done) -> list[bytes]:
        """The end of a streamed answer."""

    @abstractmethod
    def whole(self, tokens: Sequence[Token], done: Done) -> Body:
        """An answer in one piece."""

    @abstractmethod
    def broken(self) -> list[bytes]:
        """What Ollama still says in a stream whose runner has died; then it ends cleanly."""


class Vectors(ABC):
    """Says one answer that holds embeddings."""

    @abstractmethod
    def embedded(self, vectors: Sequence[list[float]], done: Done) -> Body:
        """The answer with one vector for each input."""


def joined(tokens: Sequence[Token], *, thinking: bool = False) -> str:
    """The text of the answer, or of the thinking before it."""
    return "".join(token.piece.text for token in tokens if token.thinking is thinking)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client sent, zstd undone, with the randomness for the ids in its answer."""

    body: bytes
    content_type: str
    ids: random.Random


@dataclass(frozen=True, slots=True)
class Dialect:
    """One inference endpoint: how its requests are read (or refused), and how it says an error."""

    read: Callable[[Sent], tuple[Inference, Answer | Vectors]]
    error: Callable[[Refusal], Body]
