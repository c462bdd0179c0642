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


def test_judges() -> None:
    """One where one is to decide, none elsewhere."""
    with pytest.raises(BadRequest, match="name the model that decides"):
        given(("m", None), ("m", None), mode=Mode.JUDGE)
    with pytest.raises(BadRequest, match="only in mode `judge`"):
        given(("m", None), ("m", None), judge=Participant(model="m"))
