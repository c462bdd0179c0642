"""Text is cut into blocks where nothing is torn apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.paint import PIECE_CHARACTERS, blocks, gathered


@pytest.mark.parametrize(
    ("text", "done", "tail"),
    [
        ("", [], ""),
        ("one", [], "one"),
        ("one\n\n", [], "one\n\n"),
        ("one\n\ntwo", ["one"], "two"),
        ("one\n\n\n\ntwo\n\nthree", ["one", "two"], "three"),
        ("- a\n\n- b\n\nend", ["- a\n\n- b"], "end"),
        ("1. a\n\n2. b", [], "1. a\n\n2. b"),
        ("| a |\n|---|\n\n| b |", [], "| a |\n|---|\n\n| b |"),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\nb\n```"], "c"),
        ("````\n```\n\nb\n````\n\nc", ["````\n```\n\nb\n````"], "c"),
        ("~~~py\na\n\nb", [], "~~~py\na\n\nb"),
        ("$$\nx\n\ny\n$$\n\nz", ["$$\nx\n\ny\n$$"], "z"),
        ("a\n\n    code", [], "a\n\n    code"),
    ],
)
def test_blocks(text: str, done: list[str], tail: str) -> None:
    """Only at blank lines, and not in code, formulas, lists and tables."""
    assert blocks(text) == (done, tail)


@given(st.lists(st.sampled_from(["word", "", "", "- item", "```", "$$", "| cell |", "    indented"]), max_size=20))
def test_nothing_is_lost_and_what_is_done_stays(lines: list[str]) -> None:
    """Whatever comes later, a block that was whole is not changed any more, and all of the text is there."""
    text = "\n".join(lines)
    done, tail = blocks(text)
    words = [line for part in [*done, tail] for line in part.split("\n") if line]
    assert words == [line for line in lines if line]
    for end in range(len(lines)):
        before, _ = blocks("\n".join(lines[:end]))
        assert done[: len(before)] == before


@given(st.lists(st.integers(0, 2 * PIECE_CHARACTERS), max_size=30))
def test_pieces(lengths: list[int]) -> None:
    """Few and long ones, of all blocks in their order; one that is finished is not changed by what comes later."""
    done = [str(number) * length for number, length in enumerate(lengths, 1)]
    pieces, rest = gathered(done, "tail")
    assert "\n\n".join([*pieces, rest]) == "\n\n".join([*done, "tail"])
    assert all(len(piece) >= PIECE_CHARACTERS for piece in pieces)
    assert len(pieces) <= sum(map(len, done)) / PIECE_CHARACTERS
    before, _ = gathered(done[:-1], "".join(done[-1:]))
    assert pieces[: len(before)] == before
