"""The tree of a session's messages."""

import pytest

from gateway.branches import ends, fork, newest_end, path

TREE = {0: None, 1: 0, 2: 1, 3: 2, 4: 0, 5: 1, 6: None, 7: 6}
"""0 ─ 1 ─ 2 ─ 3, with 4 beside 1 and 5 beside 2; and 6 ─ 7 from the very beginning."""


@pytest.mark.parametrize(("leaf", "expected"), [(3, [0, 1, 2, 3]), (4, [0, 4]), (5, [0, 1, 5]), (0, [0]), (7, [6, 7])])
def test_path(leaf: int, expected: list[int]) -> None:
    """From the first message to the leaf."""
    assert path(TREE, leaf) == expected


@pytest.mark.parametrize(("through", "expected"), [(0, 5), (1, 5), (2, 3), (3, 3), (4, 4), (6, 7)])
def test_newest_end(through: int, expected: int) -> None:
    """What was written last below a message."""
    assert newest_end(TREE, through) == expected


def test_ends() -> None:
    """Newest first."""
    assert ends(TREE) == [7, 5, 4, 3]
    assert ends({}) == []


@pytest.mark.parametrize(("leaf", "expected"), [(4, 0), (5, 1), (3, 3), (7, None)])
def test_fork(leaf: int, expected: int | None) -> None:
    """Where a branch leaves the one that is shown."""
    assert fork(TREE, leaf, frozenset({0, 1, 2, 3})) == expected
