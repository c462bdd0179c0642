"""What the gateway refuses has words in either language."""

import pytest

from dashboard.gateway import NAMELESS, GatewayError
from dashboard.refused import _sentences, sentence, told
from gateway.errors import ConfigError, CorralError


def codes(error: type[CorralError]) -> set[str]:
    """Of an error and all that are made of it."""
    return {error.code}.union(*map(codes, error.__subclasses__()))


def test_every_code_has_words() -> None:
    """But that of a configuration, which nobody is answered; and what the app itself refuses."""
    assert _sentences().keys() == codes(CorralError) - {ConfigError.code} | {NAMELESS}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatewayError(0, "gw:1 cannot be reached"), "The gateway does not answer."),
        (GatewayError(409, "session s is being answered", code="conflict"), "something else is under way."),
        (GatewayError(503, "nothing is kept here: …", code="store_unavailable"), "has no database"),
        (GatewayError(400, "invalid option"), "A host refuses."),
    ],
)
def test_a_sentence_and_the_words(error: GatewayError, words: str) -> None:
    """Both are told."""
    assert words in sentence(error)
    assert told(error) == f"{sentence(error)}  \n:small[:gray[{error.message}]]"
