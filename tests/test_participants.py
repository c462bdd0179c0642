"""Participants have names, and only where there is something to decide a judge."""

import pytest

from gateway.errors import BadRequest
from gateway.participants import ConversationSettings, Mode, Participant, settled


def given(*models: tuple[str, str | None], mode: Mode = Mode.DIALOGUE, judge: Participant | None = None) -> list[str]:
    """The names of all that take part."""
    participants = [Participant(model=model, name=name) for model, name in models]
    done = settled(ConversationSettings(mode=mode, participants=participants, judge=judge))
    return [one.name or "" for one in [*done.participants, *([done.judge] if done.judge else [])]]


def test_names() -> None:
    """Their own, else the model's, with a number where that is taken."""
    assert given(("llama3:8b", None), ("qwen2:latest", "Q")) == ["llama3 8b", "Q"]
    assert given(("m", None), ("m:latest", None), ("x", "M 2"), ("m", None)) == ["m", "m 3", "M 2", "m 4"]
    assert given(("m", None), ("m", None), mode=Mode.JUDGE, judge=Participant(model="m")) == ["m", "m 2", "m 3"]
    with pytest.raises(BadRequest, match="two are named 'Bob'"):
        given(("m", "Bob"), ("m", "BOB"))


@pytest.mark.parametrize("name", ["a\0", "a\nb", "\x1b", "a\u202eb", "\u200b", "a\u2028b", "\u0085"])
def test_names_that_cannot_be_seen(name: str) -> None:
    """Nobody could tell them apart, and models would read them as something else."""
    with pytest.raises(BadRequest, match="cannot be seen"):
        given(("m", name), ("m", None))


def test_spellings() -> None:
    """One name in two spellings is one; what stands around it is not part of it."""
    for twice in ("Bob ", "BOB"):
        with pytest.raises(BadRequest, match="two are named"):
            given(("m", "Bob"), ("m", twice))
    with pytest.raises(BadRequest, match="two are named"):
        given(("m", "\u00e9"), ("m", "e\u0301"))
    assert given(("a\u202eb:c", None), ("m", " Bob")) == ["a b c", "Bob"]


def test_bounds() -> None:
    """Of one's options, and of all together."""
    wordy = Participant(model="m", system="s" * 70_000)
    with pytest.raises(BadRequest, match="over 131072 bytes"):
        settled(ConversationSettings(mode=Mode.DIALOGUE, participants=[wordy, wordy]))
    wide = Participant(model="m", options={"stop": ["s" * 20_000]})
    with pytest.raises(BadRequest, match="the options of m are over 16384 bytes"):
        settled(ConversationSettings(mode=Mode.DIALOGUE, participants=[wide, wide]))


def test_judges() -> None:
    """One where one is to decide, none elsewhere."""
    with pytest.raises(BadRequest, match="name the model that decides"):
        given(("m", None), ("m", None), mode=Mode.JUDGE)
    with pytest.raises(BadRequest, match="only in mode `judge`"):
        given(("m", None), ("m", None), judge=Participant(model="m"))
