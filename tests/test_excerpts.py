"""Words of a search, and the piece of a text around a hit."""

import pytest

from gateway.errors import BadRequest
from gateway.excerpts import AROUND, Excerpt, excerpt, folded, words


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("blue sky", ["blue", "sky"]),
        ('"blue" AND -sky*', ["blue", "AND", "sky"]),
        ("небо, голубое", ["небо", "голубое"]),
        ("a_b c'd", ["a", "b", "c", "d"]),
    ],
)
def test_words(query: str, expected: list[str]) -> None:
    """Letters and digits; nothing else means anything."""
    assert words(query) == expected


@pytest.mark.parametrize("query", ["", "  ", '"*()', "a " * 21])
def test_what_cannot_be_searched_for(query: str) -> None:
    """No words, or far too many."""
    with pytest.raises(BadRequest):
        words(query)


def test_folded() -> None:
    """Every word stands between spaces."""
    assert folded("Почему небо — Blue?") == " почему небо blue "
    assert folded("") == " "


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("Why is the sky blue?", ["sky"], Excerpt("Why is the ", "sky", " blue?")),
        ("Why is the SKY blue?", ["sk"], Excerpt("Why is the ", "SKY", " blue?")),
        ("skyline and sky", ["sky", "x"], Excerpt("skyline and ", "sky", "")),
        ("Почему НЕБО голубое?", ["неб"], Excerpt("Почему ", "НЕБО", " голубое?")),
        ("nothing of it", ["sky"], Excerpt("", "", "nothing of it")),
        (
            "x" * 200 + " sky " + "y" * 200,
            ["sky"],
            Excerpt("…" + "x" * (AROUND - 1) + " ", "sky", " " + "y" * (AROUND - 1) + "…"),
        ),
    ],
)
def test_excerpt(text: str, wanted: list[str], expected: Excerpt) -> None:
    """The first hit and what stands around it; whole words but for the last."""
    assert excerpt(text, wanted) == expected
