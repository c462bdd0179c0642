"""Whether what was said is the end."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from gateway.config import GenerationsConfig
from gateway.conversation.talk import Said, Talk
from gateway.messages import Ending, MessageState, MessageUsage, NewSession
from gateway.participants import ConversationSettings, EndReason, Failing, Mode, Participant, settled
from gateway.record import CancelSource
from gateway.relay.feed import Feed
from gateway.relay.intents import Intent
from gateway.relay.shelf import Shelf
from gateway.store.none import NoDatabase
from gateway.store.rows import session_of
from gateway.store.sessions import Sessions
from gateway.telemetry.catalogue import Catalogue
from gateway.telemetry.families import Counter, Family


class Row(dict[str, object]):
    """A row of a table."""

    def __getattr__(self, name: str) -> object:
        return self.get(name)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """For events that nobody reads."""
    loop = asyncio.new_event_loop()
    yield Shelf(loop, lambda: 0.0, GenerationsConfig(), lambda _: None)
    loop.close()


def talk(shelf: Shelf, *, mode: Mode = Mode.DIALOGUE, left: int | None = None, **more: object) -> Talk:
    """Of Ann and Bob; Judy judges."""
    judge = Participant(model="m", name="Judy") if mode is Mode.JUDGE else None
    both = [Participant(model="m", name=name) for name in ("Ann", "Bob")]
    settings = settled(ConversationSettings(mode=mode, participants=both, judge=judge, **more))  # type: ignore[arg-type]
    values = Sessions(NoDatabase(), lambda: 0.0, random.Random(1)).values("", NewSession(), "conversation", None)
    session = session_of(Row(values))  # type: ignore[arg-type]
    return Talk("", "", Intent({}, "c1", "s1", 0.0), session, settings, Feed(shelf, "c1", "s1"), left, -1, Catalogue())


def said(name: str, text: str = "words", error: str | None = None, *, tokens: int = 3, kept: bool = True) -> Said:
    """One turn."""
    state = MessageState.ERROR if error else MessageState.DONE
    usage = MessageUsage(input_tokens=10, output_tokens=tokens)
    return Said(name, Ending(state=state, content=text, error=error, usage=usage), kept)


def test_it_goes_on(shelf: Shelf) -> None:
    """Where nothing speaks against it; tokens are summed up."""
    one = talk(shelf, left=7, stop=["enough"])
    one.heard([said("Ann"), said("Bob", error="broke off")])
    assert (one.reason, one.left, one.used.input_tokens, one.used.output_tokens) == (None, 1, 20, 6)
    one.ends(EndReason.TURNS)
    assert (one.ended().reason, one.ended().usage.output_tokens) == (EndReason.TURNS, 6)


@pytest.mark.parametrize(
    ("turns", "more", "reason", "error"),
    [
        ([said("Ann", "that is enough.")], {"stop": ["enough"]}, EndReason.STOP_PHRASE, None),
        ([said("Ann", tokens=7)], {"left": 7}, EndReason.TOKEN_BUDGET, None),
        ([said("Ann", kept=False)], {}, EndReason.ERROR, "the database is away"),
        ([said("Ann", error="no")], {"on_error": Failing.STOP}, EndReason.ERROR, "Ann: no"),
        ([said("Ann", error="no"), said("Bob", error="nor")], {}, EndReason.ERROR, "nobody could answer; Bob: nor"),
    ],
)
def test_it_ends(
    shelf: Shelf, turns: list[Said], more: dict[str, object], reason: EndReason, error: str | None
) -> None:
    """For one reason, in words where something went wrong."""
    one = talk(shelf, **more)  # type: ignore[arg-type]
    one.heard(turns)
    assert one.reason is reason
    assert (one.error or "").startswith(error or "")
    assert bool(one.error) is bool(error)


def test_it_is_counted(shelf: Shelf) -> None:
    """That it began, each turn, and once why it ended; also where nobody said why."""
    one = talk(shelf, stop=["enough"])
    with one.telling():
        one.heard([said("Ann"), said("Bob", error="no")])
        one.heard([said("Ann", "enough")])
    broken = talk(shelf, mode=Mode.PANEL)
    broken.counted = one.counted
    with pytest.raises(ZeroDivisionError), broken.telling():
        raise ZeroDivisionError
    assert numbers(one.counted.conversations_started) == {("dialogue",): 1, ("panel",): 1}
    assert numbers(one.counted.conversations) == {("dialogue", "stop_phrase"): 1, ("panel", "error"): 1}
    assert numbers(one.counted.conversation_turns) == {("dialogue", "done"): 2, ("dialogue", "error"): 1}


def numbers(family: Family[Counter]) -> dict[tuple[str, ...], float]:
    """A counter's values by its labels; zeros left out."""
    return {labels: child.value for labels, child in family.children().items() if child.value}


def test_failures_are_counted_one_after_another(shelf: Shelf) -> None:
    """Who answers in between begins anew."""
    one = talk(shelf)
    for turn in (said("Ann", error="no"), said("Bob"), said("Ann", error="no")):
        one.heard([turn])
    assert one.reason is None
    one.heard([said("Bob", error="no")])
    assert one.reason is EndReason.ERROR


def test_who_stops_it_has_the_first_word(shelf: Shelf) -> None:
    """Whatever else would have ended it."""
    one = talk(shelf, stop=["enough"])
    told: list[tuple[CancelSource, str]] = []
    one.intent.told = lambda source, why: told.append((source, why))
    assert one.intent.stop(CancelSource.OPERATOR, "so be it")
    assert not one.intent.stop(CancelSource.CLIENT, "left")
    one.heard([said("Ann", "enough", error="stopped")])
    assert (one.reason, one.error) == (EndReason.CANCELLED, None)
    assert told == [(CancelSource.OPERATOR, "so be it")]


def test_the_judge_names_the_winner(shelf: Shelf) -> None:
    """Nobody else does."""
    one = talk(shelf, mode=Mode.JUDGE)
    one.heard([said("Ann", "Winner: Ann"), said("Bob")])
    assert one.winner is None
    one.heard([said("Judy", "Winner: Bob")])
    one.ends(EndReason.TURNS)
    assert one.ended().winner == "Bob"
