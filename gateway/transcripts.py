"""A session with all its messages, as it leaves and as it comes back: our own JSON, and Markdown for readers.

What comes in is anybody's: all of it is checked and bounded, and an error says where it is. ``openwebui.py`` reads that program's export.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from gateway.complaint import in_words
from gateway.doc import doc
from gateway.errors import BadRequest, TooLarge
from gateway.messages import (
    MESSAGES_MOST,
    Kind,
    Message,
    MessageState,
    Model,
    Number,
    Options,
    PinnedHost,
    Role,
    Session,
    SystemPrompt,
    Title,
    clean,
)
from gateway.participants import ConversationSettings

SESSIONS_MOST = 2_000
IMPORTED_MOST = 10_000  # messages of one import: it is one transaction, and others wait to write

_SPEAKERS = {Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant", Role.TOOL: "Tool"}


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """A session and its messages, to be kept elsewhere."""

    format: Annotated[Literal["corral.session"], doc("what this is")] = "corral.session"
    version: Annotated[Literal[1], doc("of the format")] = 1
    session: Annotated[Session, doc("the session")]
    messages: Annotated[list[Message], doc("of all branches, in the order of writing")]


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken over of a session; it gets an id of its own here."""

    title: Title = ""
    kind: Annotated[Kind, doc("`chat`, or `conversation`: of several models")] = "chat"
    model: Annotated[Model | None, doc("the model that answers")] = None
    host: Annotated[PinnedHost | None, doc("the host that its requests go to; null: whichever is best")] = None
    system: Annotated[SystemPrompt | None, doc("the system prompt")] = None
    options: Options = {}
    settings: Annotated[ConversationSettings | None, doc("of a conversation")] = None
    pinned: Annotated[bool, doc("first in the list")] = False
    archived: Annotated[bool, doc("not in the list unless asked for")] = False
    leaf: Annotated[Number | None, doc("the last message of the branch that is shown; null: the newest")] = None
    created_at: Annotated[datetime, doc("when it was made", tz=True)]
    updated_at: Annotated[datetime, doc("when a message was last added or ended", tz=True)]


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is to be kept. Messages are numbered 0, 1, 2 …, each parent before its children."""

    session: Brought
    messages: list[Message]


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """A session as `/export` tells it, of which some can be left out."""

    format: Annotated[Literal["corral.session"], doc("what this is")]
    version: Annotated[Literal[1], doc("of the format")]
    session: Annotated[Brought, doc("the session; it gets an id of its own")]
    messages: Annotated[list[Message], doc("of all branches, each of a higher number than its parent")]


def loaded(body: bytes) -> list[Any]:
    """The entries of an export. Raises BadRequest for what is no JSON list of objects, TooLarge."""
    try:
        entries = json.loads(body, parse_constant=_refused)
    except (
        ValueError,
        RecursionError,
    ) as error:  # half characters in escapes are let through: they are cleaned when they are kept
        raise BadRequest(f"the import is no JSON: {error}") from None
    entries = entries if isinstance(entries, list) else [entries]
    if len(entries) > SESSIONS_MOST:
        raise TooLarge(f"the import has {len(entries)} sessions; {SESSIONS_MOST} at a time")
    return entries


def own(entry: Any, where: str) -> Import:
    """An entry that ``Transcript`` wrote. Raises BadRequest."""
    try:
        read = msgspec.convert(entry, Incoming)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{where}: {in_words(error)}") from None
    times = [read.session.created_at, read.session.updated_at]
    times += [at for message in read.messages for at in (message.created_at, message.updated_at)]
    try:
        for at in times:
            at.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"{where}: a time is before the year 1 or after 9999") from None
    return numbered(read.session, read.messages, where)


def numbered(session: Brought, messages: Sequence[Message], where: str) -> Import:
    """The messages from 0 on. Raises BadRequest where they are no tree, TooLarge."""
    if len(messages) > MESSAGES_MOST:
        raise TooLarge(f"{where} has {len(messages)} messages; a session holds {MESSAGES_MOST}")
    numbers: dict[int | None, int] = {}
    kept = []
    for seq, message in enumerate(sorted(messages, key=lambda message: message.seq)):
        if message.seq in numbers:
            raise BadRequest(f"{where}: there are two messages {message.seq}")
        if message.parent is not None and message.parent not in numbers:
            raise BadRequest(f"{where}: message {message.seq} has the parent {message.parent}, which is not before it")
        numbers[message.seq] = seq
        parent = None if message.parent is None else numbers[message.parent]
        kept.append(msgspec.structs.replace(_settled(message), seq=seq, parent=parent))
    leaf = numbers.get(session.leaf, len(kept) - 1) if kept else None
    return Import(session=msgspec.structs.replace(session, leaf=leaf), messages=kept)


def _settled(message: Message) -> Message:
    """Nobody here goes on writing it."""
    if message.state is not MessageState.STREAMING:
        return message
    return msgspec.structs.replace(message, state=MessageState.STOPPED)


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def markdown(session: Session, branch: Sequence[Message]) -> str:
    """A branch, for readers."""
    facts = [f"begun {_when(session.created_at)}", f"last written to {_when(session.updated_at)}"]
    parts = [
        f"# {_line(session.title) or 'Untitled'}",
        f"*{' · '.join([session.model or '', *facts]).removeprefix(' · ')}*",
    ]
    if session.system:
        parts.append("\n".join(f"> {line}" for line in session.system.splitlines()))
    for message in branch:
        parts += _said(message)
    return "\n\n".join(parts) + "\n"


def _said(message: Message) -> list[str]:
    speaker = [message.name or _SPEAKERS[message.role], message.model or "", message.host or ""]
    parts = [f"## {' · '.join(_line(word) for word in speaker if word)}"]
    if message.thinking:
        parts.append(f"<details>\n<summary>Thinking</summary>\n\n{message.thinking.strip()}\n\n</details>")
    if message.images:
        parts.append(f"*Images: {len(message.images)}*")
    if message.content.strip():
        parts.append(message.content.strip())
    if message.tool_calls:
        parts.append(f"~~~~json\n{clean(json.dumps(message.tool_calls, indent=2, ensure_ascii=False))}\n~~~~")
    if message.state is not MessageState.DONE:
        parts.append(f"*{message.state}{': ' + _line(message.error) if message.error else ''}*")
    return parts


def _line(text: str) -> str:
    return " ".join(text.split())


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
