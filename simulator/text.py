"""Tokens without a tokeniser: prompts become numbers, answers are words drawn by a seed."""

import functools
import itertools
import random
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

_VOCABULARY = 49_152
_START, _END, _NEWLINE = 1, 2, 198
_WORD = re.compile(r"\w+|[^\w\s]")
_WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "for",
    "on",
    "with",
    "as",
    "was",
    "at",
    "by",
    "an",
    "be",
    "this",
    "from",
    "or",
    "have",
    "not",
    "are",
    "but",
    "had",
    "were",
    "all",
    "can",
    "her",
    "llama",
    "sky",
    "blue",
    "light",
    "river",
    "field",
    "herd",
    "grass",
    "mountain",
    "morning",
    "stone",
    "wind",
    "water",
    "shepherd",
    "gate",
    "path",
    "slow",
    "quiet",
    "small",
    "old",
    "warm",
    "bright",
    "far",
    "near",
    "under",
    "over",
    "between",
    "because",
    "while",
    "every",
    "some",
    "many",
    "two",
    "three",
    "they",
    "we",
    "he",
    "she",
    "its",
    "their",
    "walks",
    "runs",
    "sees",
    "knows",
    "carries",
    "finds",
    "keeps",
    "turns",
    "waits",
    "sings",
    "says",
    "opens",
    "follows",
    "rests",
]


class Piece(NamedTuple):
    """One token of an answer: its text, and the same as a JSON string."""

    text: str
    json: bytes


def _piece(text: str) -> Piece:
    return Piece(text, orjson.dumps(text))


_INNER = tuple(_piece(f" {word}") for word in _WORDS)
_FIRST = tuple(_piece(word.capitalize()) for word in _WORDS)
_NEXT = {inner: _piece(f"\n\n{word.capitalize()}") for inner, word in zip(_INNER, _WORDS, strict=True)}
PARAGRAPH_TOKENS = 80
_JSON_HEAD = tuple(_piece(text) for text in ('{"', "answer", '":"'))
_JSON_TAIL = _piece('"}')


@functools.lru_cache(maxsize=65_536)
def _number(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % _VOCABULARY


def tokens(text: str) -> list[int]:
    """The tokens of `text`: one for each word and each sign."""
    return [_number(word) for word in _WORD.findall(text)]


def rendered(messages: Iterable[tuple[str, str]]) -> list[int]:
    """The tokens of (role, content) pairs in a chat template, with the opening of the answer at the end."""
    result: list[int] = []
    for role, content in messages:
        result += (_START, *_role(role), _NEWLINE, *tokens(content), _END, _NEWLINE)
    result += (_START, *_role("assistant"), _NEWLINE)
    return result


def _role(role: str) -> tuple[int, ...]:
    return (_number("ass"), _number("istant")) if role == "assistant" else (_number(role),)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two prompts share at their beginning."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))


def words(rng: random.Random, count: int, *, as_json: bool = False) -> list[Piece]:
    """An answer of `count` tokens in paragraphs; with `as_json` they spell a JSON object, where there is room for one."""
    if as_json and count > len(_JSON_HEAD) + 1:
        inside = rng.choices(_INNER, k=count - len(_JSON_HEAD) - 1)
        return [*_JSON_HEAD, *inside, _JSON_TAIL]
    said = list(itertools.chain(rng.choices(_FIRST, k=min(count, 1)), rng.choices(_INNER, k=max(count - 1, 0))))
    for index in range(PARAGRAPH_TOKENS, count, PARAGRAPH_TOKENS):
        said[index] = _NEXT[said[index]]
    return said


def likely(rng: random.Random, count: int) -> list[str]:
    """Texts of `count` tokens that might have come instead of the one that came."""
    return [piece.text for piece in rng.choices(_INNER, k=count)]
