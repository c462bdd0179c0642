"""Which runner options make Ollama load anew, and what that is called."""

import pytest

from gateway.config import ReloadsConfig
from gateway.dialects.read import RUNNER_KEYS
from gateway.fleet.host import ReloadCause, RunnerOptions
from gateway.fleet.runners import cause, left_to_ollama
from tests.builders import OTHER, TEXT
from tests.fleet.builders import loaded

CAUSES: dict[str, tuple[RunnerOptions, RunnerOptions | None, ReloadCause | None]] = {
    "nothing asked, nothing sent": ((), (), None),
    "nothing asked, loaded by somebody else": ((), None, None),
    "another context": ((("num_ctx", 8192),), (("num_ctx", 4096),), ReloadCause.NUM_CTX),
    "the context that the host chose": ((("num_ctx", 4096),), (), None),
    "the host's own context, after another": ((), (("num_ctx", 4096),), ReloadCause.NUM_CTX),
    "another context than somebody else's": ((("num_ctx", 8192),), None, ReloadCause.NUM_CTX),
    "an option that is new": ((("num_batch", 64),), (), ReloadCause.NUM_BATCH),
    "an option that is left out": ((), (("num_thread", 8),), ReloadCause.NUM_THREAD),
    "two options": ((("num_ctx", 8192), ("use_mmap", False)), (), ReloadCause.SEVERAL),
    "layers on the GPU": ((("num_gpu", 10),), (("num_gpu", 20),), ReloadCause.NUM_GPU),
    "as many layers as there are": ((), (("num_gpu", 20),), None),
    "as many layers as there are, in words": ((("num_gpu", -1),), (("num_gpu", 20),), None),
    "shift": ((("shift", False),), (), ReloadCause.SHIFT),
}


@pytest.mark.parametrize("name", CAUSES)
def test_cause(name: str) -> None:
    """Of a runner with 4096 tokens of context."""
    wanted, sent, expected = CAUSES[name]
    assert cause(wanted, sent, loaded(TEXT, context=4096)) is expected


def test_every_option_has_a_word() -> None:
    """Of those that are read of a request."""
    words = set(ReloadCause) - {ReloadCause.SEVERAL, ReloadCause.ELSEWHERE, ReloadCause.UNKNOWN}
    assert words == {*RUNNER_KEYS, "shift"}


RULES = (ReloadsConfig((TEXT,), "group"), ReloadsConfig(("smollm2*",), "leave"))


@pytest.mark.parametrize(
    ("model", "rules", "expected"),
    [(TEXT, (), False), (TEXT, RULES, False), ("smollm2:360m", RULES, True), (OTHER, RULES, False)],
)
def test_left_to_ollama(model: str, rules: tuple[ReloadsConfig, ...], expected: bool) -> None:
    """By the first rule that matches."""
    assert left_to_ollama(model, rules) is expected
