"""What a plain chat asks, read from its body, and where in a session it belongs: such a caller sends the whole history each time."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.depth import DEPTH_MOST, too_deep
from gateway.dialects.read import fields_of
from gateway.messages import CONTENT_MOST, IMAGES_MOST, Message, NewMessage, Role

_DATA = ";base64,"


class _Part(msgspec.Struct, gc=False):
    """Of OpenAI's contents; ``image_url`` is ``{"url": …}``, or the url alone."""

    type: str = ""
    text: str = ""
    image_url: dict[str, Any] | str = ""


class _Asked(msgspec.Struct, gc=False):
    role: str
    content: str | list[_Part] | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    name: str | None = None


_decode = msgspec.json.Decoder(list[_Asked]).decode


def asked(body: bytes) -> list[NewMessage]:
    """The messages of a body of ``/api/chat`` or ``/v1/chat/completions``, without system prompts. Raises ValueError for what cannot be kept."""
    messages = []
    for one in _decode(fields_of(body).get("messages", b"[]")):
        role = {"developer": "system"}.get(one.role, one.role)
        if role != Role.SYSTEM:
            messages.append(_message(one, Role(role)))
    return messages


def _message(one: _Asked, role: Role) -> NewMessage:
    parts = one.content if isinstance(one.content, list) else []
    text = one.content if isinstance(one.content, str) else "\n".join(part.text for part in parts if part.text)
    images = [*(one.images or ()), *filter(None, map(_image, parts))]
    if len(text) > CONTENT_MOST or len(images) > IMAGES_MOST:
        raise ValueError("it is longer than a message of a session may be")
    name = one.tool_name or one.name
    message = NewMessage(
        content=text,
        role=role,
        name=name[:128] if name else None,
        images=images or None,
        tool_calls=tool_calls(one.tool_calls) or None,
    )
    if too_deep(message):
        raise ValueError(f"it is nested more than {DEPTH_MOST} deep")
    return message


def _image(part: _Part) -> str:
    url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
    return url.partition(_DATA)[2] if isinstance(url, str) else ""


def tool_calls(given: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """As Ollama writes them: OpenAI has the arguments as a text of JSON."""
    return [call | {"function": _function(call["function"])} if "function" in call else call for call in given or ()]


def _function(given: Any) -> Any:
    if not isinstance(given, dict) or not isinstance(given.get("arguments"), str):
        return given
    try:
        return given | {"arguments": json.loads(given["arguments"] or "{}")}
    except (ValueError, RecursionError):
        return given


def continued(branch: Sequence[Message], messages: Sequence[NewMessage]) -> tuple[int | None, Sequence[NewMessage]]:
    """The message of ``branch`` that the new ones follow, and which are new.

    1. It begins as the branch does: what differs from there on is new, and perhaps another branch.
    2. It begins later (a caller who sends the last messages only): where the rest of the branch is how it begins.
    3. Neither: all of it follows the end.
    """
    same = 0
    for old, new in zip(branch, messages, strict=False):
        if not _alike(old, new):
            break
        same += 1
    if same:
        return branch[same - 1].seq, messages[same:]
    for start in range(1, len(branch)):
        rest = branch[start:]
        if len(rest) <= len(messages) and all(map(_alike, rest, messages)):
            return branch[-1].seq, messages[len(rest) :]
    return (branch[-1].seq if branch else None), messages


def _alike(old: Message, new: NewMessage) -> bool:
    return old.role == new.role and old.content.strip() == new.content.strip()
