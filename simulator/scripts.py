"""What a model says to a prompt: decided by a seed before the first token, so the same request has the same answer."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator import text
from simulator.dialects.inference import Inference, Token, ToolCall
from simulator.models import SimulatedModel

_NATURAL_TOKENS = (12, 120)
"""How long an answer is that nothing limits: from … to."""

_THINKING_PART = 3
"""A thinking model thinks for one token in so many."""

_ARGUMENTS: dict[Any, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


@dataclass(frozen=True, slots=True)
class Limit:
    """How many tokens are generated, None when the model decides; `reached` when the answer ends because of it."""

    tokens: int | None
    reached: bool


@dataclass(frozen=True, slots=True)
class Script:
    """`tokens` are sent; `counted` is how many are generated, with those nobody sees; `calls` come at the end."""

    tokens: Sequence[Token]
    counted: int
    reached_limit: bool
    calls: Sequence[ToolCall] = ()


def randomness(seed: int, model: SimulatedModel, prompt: Sequence[int], wanted: int | None = None) -> random.Random:
    """The chance by which a model answers a prompt; `wanted` is the seed that the request asks for."""
    return random.Random(f"{seed}/{model.blob}/{hash(tuple(prompt))}/{wanted}")


def compose(rng: random.Random, inference: Inference, model: SimulatedModel, limit: Limit) -> Script:
    """The answer to a request: a tool call, or thinking and text.

    An answer that ends by itself ends with a token that is counted and has no text.
    """
    count = rng.randint(*_NATURAL_TOKENS) if limit.tokens is None else limit.tokens
    if inference.tools:
        return Script((), count, reached_limit=False, calls=[_call(rng, *inference.tools[0])])
    said = count if limit.reached else max(count - 1, 0)
    thinks = inference.think is not False and "thinking" in model.capabilities
    thought = said // _THINKING_PART if thinks else 0
    pieces = text.words(rng, thought) + text.words(rng, said - thought, as_json=inference.as_json)
    tokens = [
        Token(piece, index < thought, _logprobs(rng, piece, inference.top_logprobs))
        for index, piece in enumerate(pieces)
    ]
    return Script(tokens, count, reached_limit=limit.reached)


def vector(rng: random.Random, length: int) -> list[float]:
    """A unit vector."""
    values = [rng.gauss(0.0, 1.0) for _ in range(length)]
    norm = math.hypot(*values) or 1.0
    return [round(value / norm, 8) for value in values]


def _call(rng: random.Random, name: str, parameters: dict[str, Any]) -> ToolCall:
    """A call of a tool with an argument of the right type for each of its properties."""
    properties = parameters.get("properties")
    arguments = {
        key: _ARGUMENTS.get(schema.get("type") if isinstance(schema, dict) else None, "llama")
        for key, schema in (properties if isinstance(properties, dict) else {}).items()
    }
    return ToolCall(f"call_{rng.getrandbits(32):08x}", name, arguments)


def _logprobs(rng: random.Random, piece: text.Piece, top: int | None) -> list[dict[str, Any]] | None:
    if top is None:
        return None
    row = _logprob(piece.text, -rng.random() * 2)
    if top:
        others = text.likely(rng, top)
        row["top_logprobs"] = [_logprob(other, -rng.random() - index) for index, other in enumerate(others)]
    return [row]


def _logprob(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
