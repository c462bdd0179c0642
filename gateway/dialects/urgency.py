"""How urgent a request is: what its caller says of it, and which requests nobody sits and waits for.

Chat UIs send requests of their own beside what people ask: titles, tags, suggestions. Their prompts begin with known words, in the one message
of a user. Editors complete code while somebody types: with a ``suffix``, and each is out of date when the next key is hit.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway.dialects.request import Endpoint, Priority
from gateway.errors import BadRequest
from gateway.keyconfig import PriorityWord

DEADLINE_MOST_SECONDS: Final = 86400.0
HEAD_BYTES: Final = 2048  # of a body in which a known prompt is looked for; a short system prompt may stand before it
MESSAGES_BYTES: Final = 256 * 1024  # more than that are no such request
PROMPTS: Final = (  # as Open WebUI ships them; that of an answer from documents begins with "### Task:" too, and somebody waits for it
    "### Task:\nGenerate a concise",  # titles
    "### Task:\nGenerate 1-3 broad tags",
    "### Task:\nSuggest 3-5 relevant follow-up",
    "### Task:\nAnalyze the chat history to determine",  # queries for a search
    "### Task:\nYou are an autocompletion system",
)
_PLAIN: Final = re.compile(r"[A-Za-z0-9 #.,:;_-]*")  # what JSON writes in one way only
_WORDS: dict[Priority, PriorityWord] = {
    Priority.INTERACTIVE: "interactive",
    Priority.NORMAL: "normal",
    Priority.BACKGROUND: "background",
}
_PRIORITIES: dict[str, Priority] = {word: priority for priority, word in _WORDS.items()}
_NO_SUFFIX: Final = (b'""', b"null")
_decode_messages: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def priority_of(said: str) -> Priority:
    """The priority that ``X-Corral-Priority`` names. Raises BadRequest."""
    priority = _PRIORITIES.get(said.strip().lower())
    if priority is None:
        raise BadRequest(f"X-Corral-Priority is {said[:64]!r}: write interactive, normal or background")
    return priority


def in_words(priority: Priority) -> PriorityWord:
    """As ``X-Corral-Priority`` says it."""
    return _WORDS[priority]


def deadline_of(said: str) -> float:
    """The seconds that ``X-Corral-Deadline`` says. Raises BadRequest."""
    try:
        seconds = 0.0 if "_" in said else float(said)  # Python reads 1_0 as 10
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= DEADLINE_MOST_SECONDS:
        most = f"{DEADLINE_MOST_SECONDS:.0f}"
        raise BadRequest(f"X-Corral-Deadline is {said[:64]!r}: write seconds, more than 0 and at most {most}")
    return seconds


class Background:
    """Knows requests that nobody waits for by their bodies. ``more``: beginnings of prompts, besides PROMPTS."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._beginnings = (*PROMPTS, *more)
        signs = [_plain_beginning(text) for text in self._beginnings]
        self._signs = tuple(dict.fromkeys(signs))

    def knows(self, endpoint: Endpoint, body: bytes, fields: dict[str, Any]) -> bool:
        """Whether ``body`` is such a request, that has these ``fields``, their values unparsed. Looks into messages only where a prompt seems to be known."""
        if "suffix" in fields and endpoint.operation == "text_completion":
            return bytes(memoryview(fields["suffix"])[:5]) not in _NO_SUFFIX
        for sign in self._signs:
            if body.find(sign, 0, HEAD_BYTES) >= 0:
                return "messages" in fields and self._is_known(fields["messages"])
        return False

    def _is_known(self, messages: Any) -> bool:
        if len(messages) > MESSAGES_BYTES:
            return False
        try:
            said = [text for message in _decode_messages(messages) if (text := _text_of_user(message)) is not None]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False  # its content comes in parts, or Ollama will refuse it
        return len(said) == 1 and said[0].startswith(self._beginnings)


def _text_of_user(message: dict[str, Any]) -> str | None:
    """What a message says; None: it is the system's, which says nothing of who asks."""
    if "role" in message and _decode_text(message["role"]) == "system":
        return None
    return _decode_text(message["content"]) if "content" in message else ""


def _plain_beginning(text: str) -> bytes:
    plain = _PLAIN.match(text)
    return plain[0].encode() if plain else b""
