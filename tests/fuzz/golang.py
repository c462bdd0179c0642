"""How Go's encoding/json reads a key of an object into a struct's field, told as simply as can be: what readers of ours are held against."""

import json
from typing import Any

_BLANKS = " \t\r\n"


class Refused(Exception):
    """Go would not decode it."""


def members(body: bytes) -> list[tuple[str, Any]]:
    """The members of the first JSON value, in order; none of null. What is no UTF-8 is replaced. Raises Refused."""
    text = body.decode("utf-8", errors="replace").lstrip(_BLANKS)
    decoder = json.JSONDecoder(object_pairs_hook=_Members, parse_constant=_refuse, parse_int=str, parse_float=str)
    try:
        value, _ = decoder.raw_decode(text)
    except (ValueError, RecursionError):
        raise Refused from None
    if value is None:
        return []
    if not isinstance(value, _Members):
        raise Refused
    return list(value)


def field(found: list[tuple[str, Any]], name: str) -> Any:
    """The last member that is this field, whatever its case; null says nothing."""
    return next((value for key, value in reversed(found) if folded(key) == name and value is not None), None)


def folded(key: str) -> str:
    """A key as foldName compares it, with Unicode's simple folds: two letters of other alphabets are ASCII's."""
    return "".join(
        {"\u017f": "s", "\u212a": "k"}.get(letter, letter.lower() if letter.isascii() else letter) for letter in key
    )


class _Members(list[tuple[str, Any]]):
    """An object."""


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
