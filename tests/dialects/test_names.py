"""Every way of writing a model's name leads to the one that routing and labels use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.names import MAX_LENGTH, canonical, full, is_name
from tests.profiles import PROPERTY

WRITTEN = {
    "as it is shown": ("smollm2:135m", "smollm2:135m"),
    "without a tag": ("smollm2", "smollm2:latest"),
    "with an empty tag": ("smollm2:", "smollm2:latest"),
    "with the default tag": ("smollm2:latest", "smollm2:latest"),
    "with the default namespace": ("library/smollm2", "smollm2:latest"),
    "with the default host": ("registry.ollama.ai/library/smollm2:135m", "smollm2:135m"),
    "with a scheme": ("https://registry.ollama.ai/library/smollm2:135m", "smollm2:135m"),
    "in capitals": ("SmolLM2:135M", "smollm2:135m"),
    "with spaces around": (" smollm2:135m\n", "smollm2:135m"),
    "in a namespace of its own": ("acme/smollm2", "acme/smollm2:latest"),
    "on a host of its own": ("hub.example.com/acme/smollm2:1b", "hub.example.com/acme/smollm2:1b"),
    "on a host with a port": ("hub.example.com:5000/acme/smollm2", "hub.example.com:5000/acme/smollm2:latest"),
    "in the library of another host": ("hub.example.com/library/smollm2", "hub.example.com/library/smollm2:latest"),
    "from another hub": ("hf.co/acme/Llama-3.2-1B-GGUF:Q4_K_M", "hf.co/acme/llama-3.2-1b-gguf:q4_k_m"),
    "forced to be local": ("smollm2:local", "smollm2:latest"),
    "with a tag and forced to be local": ("smollm2:135m:local", "smollm2:135m"),
    "in the cloud": ("gpt-oss:cloud", "gpt-oss:cloud"),
    "with a tag in the cloud": ("gpt-oss:120b-cloud", "gpt-oss:120b-cloud"),
    "not at all": ("", ""),
    "as spaces only": ("  ", ""),
    "as a namespace only": ("library/", ""),
}


@pytest.mark.parametrize(("name", "expected"), WRITTEN.values(), ids=WRITTEN)
def test_names(name: str, expected: str) -> None:
    """A name is compared in its canonical spelling."""
    assert canonical(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nope", "nope:latest"),
        ("NoPe", "NoPe:latest"),
        ("LIBRARY/Nope:1B", "Nope:1B"),
        ("Nope:LOCAL", "Nope:latest"),
        ("Acme/Nope", "Acme/Nope:latest"),
        (" ", ""),
    ],
)
def test_full_names(name: str, expected: str) -> None:
    """In messages a name is whole, and in the caller's case."""
    assert full(name) == expected


part = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
hidden = st.sampled_from(
    ["", "library/", "registry.ollama.ai/library/", "https://registry.ollama.ai/library/", " LIBRARY/"]
)


@given(model=part, tag=part.filter(lambda tag: tag.lower() != "local"), before=hidden)
@PROPERTY
def test_what_is_hidden_changes_nothing(model: str, tag: str, before: str) -> None:
    """Default host and namespace, case, blanks and a forced local copy all mean the same model."""
    name = f"{model}:{tag}".lower()
    assert canonical(f"{before}{model}:{tag}") == name
    assert canonical(f" {before}{model}:{tag}:local ") == name
    assert canonical(name.upper()) == name


@given(st.text())
@PROPERTY
def test_anything_is_a_name(text: str) -> None:
    """What is no valid name is never an error, and never long."""
    assert len(canonical(text)) <= 3 * MAX_LENGTH


@given(st.lists(part, min_size=1, max_size=3), part)
@PROPERTY
def test_a_canonical_name_stays(parts: list[str], tag: str) -> None:
    """What canonical gives back is canonical."""
    once = canonical(f"{'/'.join(parts)}:{tag}")
    assert canonical(once) == once
    assert full(once) == once


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("smollm2", True),
        (" library/SmolLM2:135M ", True),
        ("hf.co/some-body/model.gguf:Q4_K_M", True),
        ("gpu1:5000/a/b", True),
        ("x" * 80, True),
        ("x" * 81, False),
        ("", False),
        ("a b", False),
        ("é", False),
        (".x", False),
        ("a/b/c/d", False),
        ("some.body/model", False),
        ("model:", True),
        ("a//b", False),
    ],
)
def test_what_can_be_a_name(text: str, valid: bool) -> None:
    """One that a model can have, whether or not anybody has such a one."""
    assert is_name(text) is valid
