"""Sessions and their messages as they are kept, told and exported. Values without behaviour; the limits stand here, too.

Times are UTC, durations seconds, lengths are in characters. A message's number (``seq``) counts from 0 in the order of writing; its
``parent`` is the message before it, always of a lower number. Several messages with one parent are branches: a question that was edited,
an answer that was made again.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.doc import doc

CONVERSATION = "conversation"
"""The kind of a session in which several models talk; any other is a chat."""
Kind = Literal["chat", "conversation"]
TITLE_MOST = 300
NAME_MOST = 256
HOST_MOST = 64
SYSTEM_MOST = 100_000
OPTIONS_MOST_BYTES = 16 * 1024  # as JSON
CONTENT_MOST = 1_000_000
IMAGES_MOST = 16
MESSAGES_MOST = 10_000  # of one session, all branches together
SESSION_MOST = 32 * 1024 * 1024  # of one session: all contents, thinking, images and tool calls
NUMBER_MOST = 2**31 - 1

PLAIN = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*(?![\s\S])"
"""For ``pattern``: no control characters, and something to be seen. ``$`` would let a newline through at the end; a look ahead at the beginning would
say the same, but who makes examples of it (tests/contract) would take 50 times as long."""

_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageState(StrEnum):
    """How far a message is."""

    STREAMING = "streaming"
    DONE = "done"
    STOPPED = "stopped"
    ERROR = "error"


Content = Annotated[str, doc("what is said", max_length=CONTENT_MOST)]
Images = Annotated[list[str], doc("in base64", max_length=IMAGES_MOST)]
Number = Annotated[int, doc("a message's number", ge=0, le=NUMBER_MOST)]
Title = Annotated[str, doc("what it is called; may be empty", max_length=TITLE_MOST)]
Model = Annotated[str, doc("the model that answers", max_length=NAME_MOST, pattern=PLAIN)]
PinnedHost = Annotated[str, doc("the host that its requests go to", max_length=HOST_MOST)]
SystemPrompt = Annotated[str, doc("the system prompt", max_length=SYSTEM_MOST)]
Options = Annotated[dict[str, Any], doc("Ollama's `options`: temperature, num_ctx and the like")]


class MessageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer."""

    input_tokens: Annotated[int, doc("of the prompt", ge=0, le=NUMBER_MOST)]
    output_tokens: Annotated[int, doc("of the answer", ge=0, le=NUMBER_MOST)]


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer's time went, in seconds; null where nobody knows."""

    queue_seconds: Annotated[float | None, doc("waiting in Corral")] = None
    ttft_seconds: Annotated[float | None, doc("from receipt to the first byte")] = None
    total_seconds: Annotated[float | None, doc("from receipt to the end")] = None
    load_seconds: Annotated[float | None, doc("the host's own: loading the model")] = None
    prefill_seconds: Annotated[float | None, doc("the host's own: reading the prompt")] = None
    decode_seconds: Annotated[float | None, doc("the host's own: writing the answer")] = None
    thinking_seconds: Annotated[float | None, doc("from the first thought to the first word, by the host's clock")] = (
        None
    )


class NewMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that somebody says."""

    content: Content
    role: Annotated[Role, doc("`user`; of what a tool answers `tool`")] = Role.USER
    name: Annotated[
        Annotated[str, Meta(max_length=128)] | None, doc("of the participant who speaks, or of the tool")
    ] = None
    images: Annotated[Images | None, doc("in base64")] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, doc("as Ollama writes them")] = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer has become."""

    state: MessageState
    content: str
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    error: str | None = None
    model: str | None = None
    host: str | None = None
    usage: MessageUsage | None = None
    timings: Timings | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a session."""

    seq: Annotated[int, doc("its number, from 0 in the order of writing", ge=0, le=NUMBER_MOST)]
    parent: Annotated[Number | None, doc("the number of the message before it; null: it is the first")]
    role: Annotated[Role, doc("`system`, `user`, `assistant` or `tool`")]
    name: Annotated[
        Annotated[str, Meta(max_length=128)] | None, doc("of the participant who speaks, or of the tool")
    ] = None
    content: Content
    thinking: Annotated[Annotated[str, Meta(max_length=CONTENT_MOST)] | None, doc("what the model thought before")] = (
        None
    )
    images: Annotated[Images | None, doc("in base64")] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, doc("as Ollama writes them")] = None
    model: Annotated[Annotated[str, Meta(max_length=NAME_MOST)] | None, doc("the model that answered")] = None
    host: Annotated[Annotated[str, Meta(max_length=HOST_MOST)] | None, doc("where it ran")] = None
    state: Annotated[
        MessageState,
        doc("`streaming`: it is being written; `done`; `stopped`: somebody stopped it; `error`: it broke off"),
    ] = MessageState.DONE
    error: Annotated[Annotated[str, Meta(max_length=CONTENT_MOST)] | None, doc("why, where the state is `error`")] = (
        None
    )
    generation: Annotated[Annotated[str, Meta(max_length=32)] | None, doc("the id of the generation that wrote it")] = (
        None
    )
    usage: Annotated[MessageUsage | None, doc("tokens of an answer")] = None
    timings: Annotated[Timings | None, doc("an answer's")] = None
    created_at: Annotated[datetime, doc("when it was begun", tz=True)]
    updated_at: Annotated[datetime, doc("when it was last written to", tz=True)]


class NewSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session that is to be."""

    title: Title = ""
    model: Annotated[Model | None, doc("the model that answers")] = None
    host: Annotated[PinnedHost | None, doc("the host that its requests go to; null: whichever is best")] = None
    system: Annotated[SystemPrompt | None, doc("the system prompt")] = None
    options: Options = {}
    pinned: Annotated[bool, doc("first in the list")] = False
    archived: Annotated[bool, doc("not in the list unless asked for")] = False


class SessionChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to change of a session; what is left out stays as it is."""

    title: Title | UnsetType = UNSET
    model: Annotated[Model | UnsetType | None, doc("the model that answers")] = UNSET
    host: Annotated[PinnedHost | UnsetType | None, doc("the host that its requests go to; null: whichever is best")] = (
        UNSET
    )
    system: Annotated[SystemPrompt | UnsetType | None, doc("the system prompt")] = UNSET
    options: Options | UnsetType = UNSET
    pinned: Annotated[bool | UnsetType, doc("first in the list")] = UNSET
    archived: Annotated[bool | UnsetType, doc("not in the list unless asked for")] = UNSET
    leaf: Annotated[
        Number | UnsetType, doc("a message's number: the branch that goes through it is shown, to its newest end")
    ] = UNSET


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One session."""

    id: Annotated[str, doc("unique, sortable by the time of making")]
    kind: Annotated[str, doc("`chat`, or `conversation`: of several models")]
    title: Title
    model: Annotated[Model | None, doc("the model that answers")]
    host: Annotated[PinnedHost | None, doc("the host that its requests go to; null: whichever is best")]
    system: Annotated[SystemPrompt | None, doc("the system prompt")]
    options: Options
    settings: Annotated[dict[str, Any] | None, doc("of a conversation")]
    pinned: Annotated[bool, doc("first in the list")]
    archived: Annotated[bool, doc("not in the list unless asked for")]
    leaf: Annotated[int | None, doc("the number of the last message of the branch that is shown; null: it has none")]
    messages: Annotated[int, doc("how many there are, all branches together", ge=0)]
    running: Annotated[str | None, doc("the id of the generation that writes to it now")]
    created_at: Annotated[datetime, doc("when it was made")]
    updated_at: Annotated[datetime, doc("when a message was last added or ended")]
    begins: Annotated[
        str | None, doc("how its first message begins, for those without a title; told by the list alone, else null")
    ] = None
    erased_at: Annotated[
        datetime | None, doc("when it is erased; until then it can be restored. null: it is not deleted")
    ] = None


def clean(text: str) -> str:
    """``text`` as any database takes it: without NUL and halves of characters."""
    return _UNWRITABLE.sub("\ufffd", text)
