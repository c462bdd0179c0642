"""What is known of a request once it is read, and what is known of each path that takes one."""

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import Any

import msgspec

from gateway.dialects.ending import Ending
from gateway.record import NO_TRACE, Trace

BYTES_PER_TOKEN = 4
BLOCK_BYTES = 2048
BLOCK_TOKENS = BLOCK_BYTES // BYTES_PER_TOKEN


EMBEDDINGS = "embeddings"  # an endpoint's operation


class Kind(StrEnum):
    """What the caller wants of the model."""

    INFER = "infer"
    LOAD = "load"  # an empty prompt: load the model and answer at once
    UNLOAD = "unload"  # an empty prompt and keep_alive 0


class Priority(IntEnum):
    """Whose turn it is, where some have to wait: the least first."""

    INTERACTIVE = 0
    NORMAL = 1
    BACKGROUND = 2


class Farewell(msgspec.Struct, frozen=True, gc=False):
    """What a dialect needs to end a stream in its own words. ``now`` is RFC 3339, ``unix`` seconds; ``head`` and ``tail`` the answer's."""

    id: str
    model: str
    message: str
    code: str
    tokens: int
    now: str
    unix: int
    head: bytes
    tail: bytes


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One inference path and how its dialect speaks. ``prompt_keys`` hold the prompt, in the order the model reads it."""

    path: str
    dialect: str
    operation: str
    streams_by_default: bool
    prompt_keys: tuple[str, ...]
    lines_per_event: int
    preamble_events: int  # events of a stream before its first token
    not_found: str  # what Ollama says of an unknown model; {} is the name as sent
    missing_model: tuple[int, str]
    error: Callable[[int, str, str, str], bytes]  # (status, message, code, generation id) → body
    ending: Callable[[bytes], Ending]
    failed: Callable[[Farewell], bytes]
    cancelled: Callable[[Farewell], bytes]
    multipart: bool = False
    load_key: str = ""  # where an empty value of this key asks to load the model only, or to unload it


class InferenceRequest(msgspec.Struct, frozen=True, gc=False):
    """One request, read. ``requested_model`` is as sent, ``model`` canonical.

    ``prefix``: a chain of hashes, one for each BLOCK_BYTES of the prompt; two prompts begin alike as far as their chains are equal.
    """

    id: str
    endpoint: Endpoint
    kind: Kind
    requested_model: str
    model: str
    stream: bool
    runner_options: tuple[tuple[str, Any], ...]
    prompt_tokens: int  # estimated
    prefix: tuple[int, ...]
    body: bytes
    session: str | None = None
    client: str = ""
    pin: str = ""  # the host that was asked for by name; empty: any
    trace: Trace = NO_TRACE
    priority: Priority = Priority.NORMAL
    deadline_seconds: float = 0.0  # after it was received its first byte has to be there; 0: its caller waits
    clamped_from: int = 0  # num_ctx that was asked for, where a smaller one is sent
    principal: str = ""  # who asks; empty: somebody without a key
    hosts: tuple[str, ...] = ()  # patterns of those that may be used; empty: all
    kept: bool = True  # whether it may be recorded into a session of theirs
    share: float = 1.0  # its key's weight in the waiting room
    own_deadline: bool = False  # `deadline_seconds` is what its caller asked for, not what is configured

    @property
    def embeds(self) -> bool:
        """Whether it wants no words of the model: no answer is written, and no slot's cache is used."""
        return self.endpoint.operation == EMBEDDINGS

    @property
    def party(self) -> str:
        """With whom it shares the waiting room: all of its key, or of its caller's address. No address begins with ``@``."""
        return f"@{self.principal}" if self.principal else self.client
