"""The words of a search, and where they stand in a text. A word is letters and digits; all else stands between words."""

import re
from typing import Annotated

import msgspec

from gateway.doc import doc
from gateway.errors import BadRequest

QUERY_MOST = 500
WORDS_MOST = 20
AROUND = 80

_WORD = re.compile(r"[^\W_]+")


class Excerpt(msgspec.Struct, frozen=True):
    """A piece of a text with one hit in it."""

    before: Annotated[str, doc("what stands before the hit")]
    hit: Annotated[str, doc("the word that was found")]
    after: Annotated[str, doc("what stands behind it")]


def words(query: str) -> list[str]:
    """What is searched for: all these words, the last of which may go on. Raises BadRequest."""
    found = _WORD.findall(query)
    if not found:
        raise BadRequest("say what to search for: q, at least one word")
    if len(found) > WORDS_MOST:
        raise BadRequest(f"search for {WORDS_MOST} words at most, not {len(found)}")
    return found


def folded(text: str) -> str:
    """The words of a text in lower case, each with a space before and one behind all."""
    return "".join(f" {word}" for word in _WORD.findall(text.lower())) + " "


def excerpt(text: str, wanted: list[str]) -> Excerpt:
    """The piece around the first hit; the text's beginning, where it has none."""
    *whole, last = map(re.escape, wanted)
    found = re.search(
        "|".join(rf"(?<![^\W_]){word}" for word in [*(rf"{word}(?![^\W_])" for word in whole), rf"{last}[^\W_]*"]),
        text,
        re.IGNORECASE,
    )
    if found is None:
        return Excerpt("", "", _cut(text[: 2 * AROUND + 1], 2 * AROUND))
    start, end = found.span()
    before = text[max(0, start - AROUND) : start]
    if start > AROUND:
        before = "…" + before
    return Excerpt(before, found[0], _cut(text[end : end + AROUND + 1], AROUND))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"
