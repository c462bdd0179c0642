"""Rows of ``sessions`` and ``messages``: from values and to values, and the one way to a session, which is always its owner's."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import BadRequest, NotFound
from gateway.excerpts import folded
from gateway.messages import (
    OPTIONS_MOST_BYTES,
    Ending,
    Message,
    MessageState,
    MessageUsage,
    NewMessage,
    Role,
    Session,
    Timings,
    clean,
)
from gateway.store.schema import sessions

THREAD_CHARACTERS = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIMES = {name: f"{name.removesuffix('_seconds')}_ms" for name in Timings.__struct_fields__}
"""Seconds outside, milliseconds inside."""


async def found(
    connection: AsyncConnection, owner: str, id_: str, *, lock: bool = False, deleted: bool = False
) -> Row[Any]:
    """The row of a session. ``lock``: nobody else writes to it until the transaction ends; ``deleted``: also one that is, and can be
    restored. Raises NotFound."""
    wanted = select(sessions).where(sessions.c.id == clean(id_), sessions.c.owner == owner)
    if not deleted:
        wanted = wanted.where(sessions.c.erase_us.is_(None))
    row = (await connection.execute(wanted.with_for_update() if lock else wanted)).one_or_none()
    if row is None:
        raise NotFound(f"there is no session {id_[:64]!r}")
    return row


def microseconds(at: datetime) -> int:
    """Since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment(at_us: int) -> datetime:
    """The other way round."""
    return _EPOCH + at_us * _MICROSECOND


def session_of(row: Row[Any]) -> Session:
    """A row of ``sessions``."""
    return Session(
        id=row.id,
        kind=row.kind,
        title=row.title,
        model=row.model,
        host=row.host,
        system=row.system,
        options=json.loads(row.options),
        settings=_read(row.settings),
        pinned=row.pinned,
        archived=row.archived,
        leaf=row.leaf,
        messages=row.next_seq,
        running=row.running,
        created_at=moment(row.created_us),
        updated_at=moment(row.updated_us),
        erased_at=None if row.erase_us is None else moment(row.erase_us),
    )


def session_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for what is given of a session. Raises BadRequest for options that are too long."""
    values = {name: clean(value) if isinstance(value, str) else value for name, value in given.items()}
    if "title" in values:
        values["title_words"] = folded(values["title"])
    if "options" in values:
        values["options"] = _written(values["options"])
        if len(values["options"]) > OPTIONS_MOST_BYTES:
            raise BadRequest(f"options are over {OPTIONS_MOST_BYTES} bytes")
    if "settings" in values:
        values["settings"] = _written(values["settings"])
    return values


def message_of(row: Row[Any]) -> Message:
    """A row of ``messages``."""
    usage = (
        None
        if row.output_tokens is None
        else MessageUsage(input_tokens=row.input_tokens, output_tokens=row.output_tokens)
    )
    milliseconds = {name: getattr(row, column) for name, column in _TIMES.items()}
    known = any(value is not None for value in milliseconds.values())
    seconds = {name: None if value is None else round(value / 1000, 6) for name, value in milliseconds.items()}
    return Message(
        seq=row.seq,
        parent=row.parent,
        role=Role(row.role),
        name=row.name,
        content=row.content,
        thinking=row.thinking,
        images=_read(row.images),
        tool_calls=_read(row.tool_calls),
        model=row.model,
        host=row.host,
        state=MessageState(row.state),
        error=row.error,
        generation=row.generation,
        usage=usage,
        timings=Timings(**seconds) if known else None,
        created_at=moment(row.created_us),
        updated_at=moment(row.updated_us),
    )


async def messages_of(rows: Sequence[Row[Any]]) -> list[Message]:
    """Rows of ``messages``. Images are long texts to read: not on the loop."""
    if sum(len(row.images or "") + len(row.tool_calls or "") for row in rows) < THREAD_CHARACTERS:
        return [message_of(row) for row in rows]
    return await asyncio.to_thread(lambda: [message_of(row) for row in rows])


def message_values(message: Message | NewMessage | Ending) -> dict[str, Any]:
    """Columns for all that it has; of usage and timings those that are known."""
    values: dict[str, Any] = {
        name: clean(value) if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(message).items()
    }
    usage, timings = values.pop("usage", None), values.pop("timings", None)
    for name in ("images", "tool_calls"):
        if name in values:
            values[name] = _written(values[name])
    for name in ("created_at", "updated_at"):
        if name in values:
            values[f"{name.removesuffix('_at')}_us"] = microseconds(values.pop(name))
    if not isinstance(message, NewMessage):
        values["input_tokens"] = usage.input_tokens if usage else None
        values["output_tokens"] = usage.output_tokens if usage else None
        for name, column in _TIMES.items():
            seconds = getattr(timings, name) if timings else None
            values[column] = None if seconds is None else seconds * 1000
    return values


def size(values: Mapping[str, Any]) -> int:
    """Characters of a message's columns that count towards its session's limit."""
    return sum(len(values.get(name) or "") for name in ("content", "thinking", "images", "tool_calls"))


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _written(value: Any) -> str | None:
    """JSON in ASCII: whatever a host or a caller chose, any database takes it, and whoever reads it can write it again."""
    return None if value is None else json.dumps(_cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {clean(name): _cleaned(one) for name, one in value.items()}
    return value
