"""Reads what Open WebUI exports: ``[{"title", "chat": {"models", "history": {"messages": {id: …}, "currentId"}}}, …]``."""

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import msgspec

from gateway.complaint import in_words
from gateway.errors import BadRequest
from gateway.messages import (
    CONTENT_MOST,
    IMAGES_MOST,
    NAME_MOST,
    SYSTEM_MOST,
    TITLE_MOST,
    Message,
    MessageState,
    Role,
)
from gateway.transcripts import Brought, Import, numbered

_REASONING = '<details type="reasoning"'
_LATEST_SECONDS = 1e11  # what is more must be milliseconds


class _Message(msgspec.Struct, kw_only=True, rename="camel"):
    role: Role
    content: str | None = None
    parent_id: str | None = None
    timestamp: float | None = None
    model: str | None = None
    files: list[Any] | None = None
    error: Any = None


class _History(msgspec.Struct, kw_only=True, rename="camel"):
    messages: dict[str, _Message]
    current_id: str | None = None


class _Chat(msgspec.Struct, kw_only=True):
    history: _History
    title: str | None = None
    models: list[str] | None = None
    system: str | None = None
    params: dict[str, Any] | None = None


class _Entry(msgspec.Struct, kw_only=True):
    chat: _Chat
    title: str | None = None
    pinned: bool | None = None
    archived: bool | None = None
    created_at: float | None = None
    updated_at: float | None = None


def openwebui(entry: Any, where: str, now: datetime) -> Import:
    """One chat. Messages whose parent is not there begin a branch of their own. Raises BadRequest, TooLarge."""
    try:
        read = msgspec.convert(entry, _Entry)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{where}: {in_words(error)}") from None
    chat, history = read.chat, read.chat.history
    begun = _moment(read.created_at, now)
    order = {id_: seq for seq, id_ in enumerate(_in_order(history.messages))}
    if len(order) < len(history.messages):
        raise BadRequest(f"{where}: its messages are each other's parents")
    messages = [_message(history.messages[id_], seq, order, where, begun) for id_, seq in order.items()]
    system = chat.system or (chat.params or {}).get("system")
    session = Brought(
        title=(read.title or chat.title or "")[:TITLE_MOST],
        model=next(iter(chat.models or []), "")[:NAME_MOST] or None,
        system=system[:SYSTEM_MOST] if isinstance(system, str) and system else None,
        pinned=bool(read.pinned),
        archived=bool(read.archived),
        leaf=order.get(history.current_id or ""),
        created_at=begun,
        updated_at=_moment(read.updated_at, begun),
    )
    return numbered(session, messages, where)


def _in_order(messages: dict[str, _Message]) -> Iterator[str]:
    """Their ids by time, each after its parent; those of a circle are left out."""
    below: dict[str | None, list[tuple[float, int, str]]] = {}
    for number, (id_, message) in enumerate(messages.items()):
        parent = message.parent_id if message.parent_id in messages else None
        below.setdefault(parent, []).append((message.timestamp or 0.0, number, id_))
    waiting = below.get(None, [])
    heapq.heapify(waiting)
    while waiting:
        _, _, id_ = heapq.heappop(waiting)
        yield id_
        for child in below.get(id_, []):
            heapq.heappush(waiting, child)


def _message(message: _Message, seq: int, order: dict[str, int], where: str, begun: datetime) -> Message:
    thinking, content = _parted(message.content or "")
    if len(message.content or "") > CONTENT_MOST:
        raise BadRequest(f"{where}: message {seq} has over {CONTENT_MOST} characters")
    at = _moment(message.timestamp, begun)
    return Message(
        seq=seq,
        parent=order.get(message.parent_id or ""),
        role=message.role,
        content=content,
        thinking=thinking,
        images=_images(message.files) or None,
        model=message.model[:NAME_MOST] if message.model and message.role is Role.ASSISTANT else None,
        state=MessageState.ERROR if message.error else MessageState.DONE,
        error=_words(message.error) if message.error else None,
        created_at=at,
        updated_at=at,
    )


def _parted(content: str) -> tuple[str | None, str]:
    """(what the model thought, what it said): the first is a quotation, folded away at the beginning."""
    if not content.startswith(_REASONING):
        return None, content
    _, _, rest = content.partition("</summary>")
    quoted, end, said = rest.partition("</details>")
    if not end:
        return None, content
    lines = (line.removeprefix(">").removeprefix(" ") for line in unescape(quoted).strip().splitlines())
    return "\n".join(lines), said.lstrip("\n")


def _images(files: list[Any] | None) -> list[str]:
    """The pictures that are in it; what lies elsewhere stays there."""
    urls = [file.get("url") for file in files or [] if isinstance(file, dict) and file.get("type") == "image"]
    parted = [url.partition(";base64,") for url in urls if isinstance(url, str)]
    return [data for head, found, data in parted if found and head.startswith("data:image/")][:IMAGES_MOST]


def _words(error: Any) -> str:
    content = error.get("content") if isinstance(error, dict) else error
    return str(content)[:CONTENT_MOST]


def _moment(at: float | None, otherwise: datetime) -> datetime:
    """Of Unix seconds; some versions write milliseconds."""
    if at is None or not 0 < at < _LATEST_SECONDS * 1000:
        return otherwise
    return datetime.fromtimestamp(at if at < _LATEST_SECONDS else at / 1000, UTC)
