"""How deep a value is nested: lists, objects and Structs count alike."""

from typing import Any

import msgspec
import pytest

from gateway.depth import DEPTH_MOST, too_deep


class Box(msgspec.Struct):
    """One level of the third kind."""

    inner: Any


WRAPPERS: dict[str, Any] = {
    "list": lambda inner: [1, inner],
    "object": lambda inner: {"a": inner, "b": ""},
    "Struct": Box,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_bound(wrap: Any) -> None:
    """DEPTH_MOST levels are let through, one more is not, nor are more than any recursion takes."""
    value: Any = "x"
    for levels in range(1, DEPTH_MOST + 1):
        value = wrap(value)
        assert not too_deep(value), levels
    assert too_deep(wrap(value))
    for _ in range(5_000):
        value = wrap(value)
    assert too_deep(value)


@pytest.mark.parametrize("value", ["x", None, 1, [], {}, [[]] * 1_000])
def test_what_is_flat(value: Any) -> None:
    """Width is no depth."""
    assert not too_deep(value)
