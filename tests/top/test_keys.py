"""Bytes of a terminal → keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.top.keys import Key, keys


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[Bc", [Key.UP, Key.DOWN, "c"]),
        (b"\x1bOA\x1bOB", [Key.UP, Key.DOWN]),
        (b"\t", [Key.TAB]),
        (b"\x1b[1;5Ay", [Key.OTHER, "y"]),
        (b"\x1b[5~", [Key.OTHER]),
        (b"\x1b\x1b[A", [Key.ESCAPE, Key.UP]),
        (b"\x1bq", [Key.ESCAPE, "q"]),
        ("ä".encode(), ["ä"]),
        (b"\xff", [Key.OTHER]),
        (b"\r\x00", [Key.OTHER, Key.OTHER]),
    ],
)
def test_keys(data: bytes, found: list[str]) -> None:
    """Whole ones; what is none of ours is told apart from ours."""
    assert keys(data, more=False) == (found, b"")


@pytest.mark.parametrize(("begun", "key"), [(b"\x1b", Key.ESCAPE), (b"\x1b[", Key.OTHER), (b"\xc3", Key.OTHER)])
def test_the_beginning_of_a_key(begun: bytes, key: Key) -> None:
    """Waits for the rest, and is a key by itself when nothing comes."""
    assert keys(begun, more=True) == ([], begun)
    assert keys(begun, more=False) == ([key], b"")


@given(st.binary(max_size=20), st.integers(0, 20))
def test_pieces(data: bytes, cut: int) -> None:
    """However the bytes come in, they are the same keys."""
    first, rest = keys(data[:cut], more=True)
    second, nothing = keys(rest + data[cut:], more=False)
    assert first + second == keys(data, more=False)[0]
    assert nothing == b""
