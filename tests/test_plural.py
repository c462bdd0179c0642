"""Numbers of things in words."""

import pytest

from gateway.plural import counted


@pytest.mark.parametrize(("number", "words"), [(0, "0 hosts"), (1, "1 host"), (2, "2 hosts")])
def test_counted(number: int, words: str) -> None:
    """One is not many."""
    assert counted(number, "host") == words
