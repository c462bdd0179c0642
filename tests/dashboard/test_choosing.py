"""What is known of models, from the rows of the hosts that may take the request."""

from typing import Any

import pytest

from dashboard.choosing import Model, models


def host(name: str, *available: dict[str, Any], loaded: dict[str, int | None] | None = None) -> dict[str, Any]:
    """A host's row. ``loaded``: contexts by model."""
    rows = [{"name": model, "context_length": context} for model, context in (loaded or {}).items()]
    return {"name": name, "models_available": list(available), "models_loaded": rows}


def tag(name: str, *capabilities: str) -> dict[str, Any]:
    """A model as a host lists it."""
    details = {"parameter_size": "8B", "quantization_level": "Q4_K_M"}
    return {"name": name, "size": 5_000_000_000, "details": details, "capabilities": list(capabilities)}


def test_those_in_memory_come_first() -> None:
    """With all that is known of them; what can only embed is left out, what tells nothing is not."""
    first = host("gpu1", tag("b", "completion", "vision"), tag("e", "embedding"), {"name": "old"})
    second = host("gpu2", tag("a", "completion"), tag("b", "completion", "vision"), loaded={"b": 4096})
    found = models([first, second])
    assert list(found) == ["b", "a", "old"]
    assert found["b"] == Model("b", "8B", "Q4_K_M", 5_000_000_000, ("completion", "vision"), {"gpu2": 4096})
    assert (found["a"].lacks("vision"), found["b"].lacks("vision"), found["old"].lacks("vision")) == (
        True,
        False,
        False,
    )
    assert models([]) == {}


@pytest.mark.parametrize(
    ("loaded", "num_ctx", "reloading"),
    [
        ({"gpu1": 4096}, None, {}),
        ({"gpu1": 4096}, 4096, {}),
        ({"gpu1": 4096}, 8192, {"gpu1": 4096}),
        ({"gpu1": 4096, "gpu2": 8192}, 8192, {}),
        ({"gpu1": 4096, "gpu2": 2048}, 8192, {"gpu1": 4096, "gpu2": 2048}),
        ({"gpu1": 0}, 8192, {}),
        ({}, 8192, {}),
    ],
    ids=["as it is", "just so", "another", "elsewhere just so", "nowhere just so", "not told", "not loaded"],
)
def test_another_context(loaded: dict[str, int], num_ctx: int | None, reloading: dict[str, int]) -> None:
    """Makes a host load the model again, unless one has it just so."""
    assert Model("m", "", "", 0, (), loaded).reloading(num_ctx) == reloading
