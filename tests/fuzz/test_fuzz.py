"""A little fuzzing in every run, the same each time: what is recorded or made up, bent. ``make fuzz`` goes on from there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS
from tests.profiles import PROPERTY


@st.composite
def bent(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed, of which some places are cut out, doubled or put something else in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 12))
        other = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([b"\r\n", b"\n", b"0", b'"', b":", b"{}", b"null", b"--B", data[at : at + 40]]),
            )
        )
        data = data[:at] + other + data[at + size :]
    return data


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@PROPERTY
def test_bent(name: str, data: st.DataObject) -> None:
    """What nearly is what it should be."""
    TARGETS[name](data.draw(bent(SEEDS[name])))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=200))
@PROPERTY
def test_anything(name: str, data: bytes) -> None:
    """What is nothing at all."""
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """What is recorded."""
    for seed in SEEDS[name]:
        TARGETS[name](seed)
