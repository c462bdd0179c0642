"""Who speaks when."""

import pytest

from gateway.conversation.order import check_turns, rounds
from gateway.errors import BadRequest
from gateway.participants import ConversationSettings, Mode, Participant, settled


def settings(mode: Mode, *names: str, judge: str | None = None) -> ConversationSettings:
    """Of these participants."""
    return settled(
        ConversationSettings(
            mode=mode,
            participants=[Participant(model="m", name=name) for name in names],
            judge=Participant(model="m", name=judge) if judge else None,
        )
    )


def spoken(mode: Mode, turns: int | None, last: str | None = None, judge: str | None = None) -> list[str]:
    """The names of each round."""
    order = rounds(settings(mode, "Ann", "Bob", "Cid", judge=judge), turns, last)
    return [" ".join(one.name or "" for one in speakers) for speakers in order]


def test_each_mode() -> None:
    """One by one, or all at once; twice each where nobody says how often."""
    assert spoken(Mode.DIALOGUE, 4) == ["Ann", "Bob", "Cid", "Ann"]
    assert spoken(Mode.DIALOGUE, None) == ["Ann", "Bob", "Cid"] * 2
    assert spoken(Mode.PANEL, None) == ["Ann Bob Cid"] * 2
    assert spoken(Mode.PANEL, 4) == ["Ann Bob Cid", "Ann"]
    assert spoken(Mode.PANEL, 2) == ["Ann Bob"]
    assert spoken(Mode.COMPARE, None) == ["Ann Bob Cid"]
    assert spoken(Mode.JUDGE, None, judge="Judy") == ["Ann Bob Cid", "Judy"]


@pytest.mark.parametrize(("last", "first"), [("Ann", "Bob"), ("Cid", "Ann"), ("somebody else", "Ann"), (None, "Ann")])
def test_going_on(last: str | None, first: str) -> None:
    """Behind whoever spoke last."""
    assert spoken(Mode.DIALOGUE, 1, last) == [first]


def test_turns_are_not_counted_where_all_answer_once() -> None:
    """And that is said."""
    for one in (settings(Mode.COMPARE, "Ann", "Bob"), settings(Mode.JUDGE, "Ann", "Bob", judge="Judy")):
        check_turns(one, None)
        with pytest.raises(BadRequest, match="everybody answers once"):
            check_turns(one, 2)
    check_turns(settings(Mode.PANEL, "Ann", "Bob"), 2)
