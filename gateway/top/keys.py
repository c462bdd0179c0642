"""Bytes of a terminal → keys. Pure."""

from enum import StrEnum


class Key(StrEnum):
    """Keys without a letter of their own."""

    UP = "up"
    DOWN = "down"
    TAB = "tab"
    ESCAPE = "escape"
    OTHER = "other"  # a key that means nothing here


_SEQUENCES = {
    b"\x1b[A": Key.UP,
    b"\x1b[B": Key.DOWN,
    b"\x1bOA": Key.UP,
    b"\x1bOB": Key.DOWN,
    b"\t": Key.TAB,
}
_FINAL = range(0x40, 0x7F)  # what ends a sequence that began with ESC [


def keys(data: bytes, *, more: bool) -> tuple[list[str], bytes]:
    """The keys in ``data``, letters as themselves, and what is only the beginning of one. ``more``: the rest may still come."""
    found: list[str] = []
    while data:
        length = _length(data)
        if length is None:
            if more:
                break
            length = 1 if data == b"\x1b" else len(data)
        found.append(_named(data[:length]))
        data = data[length:]
    return found, data


def _length(data: bytes) -> int | None:
    """Of the first key; None: it is not whole.

    1. no ESC → a character, of as many bytes as UTF-8 has for it; 2. ESC alone → not whole; 3. ESC O x; 4. ESC [ … final; 5. ESC and
    anything else → ESC by itself.
    """
    if data[0] != 0x1B:
        length = 1 + (data[0] >= 0xC0) + (data[0] >= 0xE0) + (data[0] >= 0xF0)
        return length if len(data) >= length else None
    if len(data) == 1:
        return None
    if data[1:2] == b"O":
        return 3 if len(data) >= 3 else None
    if data[1:2] == b"[":
        return next((end + 1 for end in range(2, len(data)) if data[end] in _FINAL), None)
    return 1


def _named(key: bytes) -> str:
    if key == b"\x1b":
        return Key.ESCAPE
    if key in _SEQUENCES:
        return _SEQUENCES[key]
    text = key.decode(errors="ignore")
    return text if len(text) == 1 and text.isprintable() else Key.OTHER
