"""How deep a value is nested: writers of JSON give up between 200 and 1,000 levels, each at another one, and what is kept must be told."""

from typing import Any

import msgspec

DEPTH_MOST = 100


def too_deep(value: Any) -> bool:
    """Whether lists, objects and Structs stand in each other more than DEPTH_MOST deep."""
    level = [value]
    for _ in range(DEPTH_MOST):
        level = [inner for outer in level for inner in _within(outer)]
        if not level:
            return False
    return True


def _within(value: Any) -> list[Any]:
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    elif isinstance(value, msgspec.Struct):
        inner = (getattr(value, name) for name in value.__struct_fields__)
    return [one for one in inner if isinstance(one, dict | list | msgspec.Struct)]
