"""What each participant sees."""

from datetime import UTC, datetime

import pytest

from gateway.conversation.order import Round
from gateway.conversation.view import CUT, GO_ON, alternating, for_judge, framing, seen, winner
from gateway.messages import Message, MessageState, Role
from gateway.participants import ConversationSettings, Mode, Participant

ANN, BOB, CID = (Participant(model="m", name=name) for name in ("Ann", "Bob", "Cid"))
ALL: Round = (ANN, BOB, CID)


def branch(*said: tuple[str | None, str]) -> list[Message]:
    """Who said what; None: the user."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Message(
            seq=seq,
            parent=seq - 1 if seq else None,
            role=Role.ASSISTANT if name else Role.USER,
            name=name,
            content=text,
            model="m" if name else None,
            state=MessageState.DONE,
            created_at=now,
            updated_at=now,
        )
        for seq, (name, text) in enumerate(said)
    ]


TALK = branch((None, "topic"), ("Ann", "a1"), ("Bob", "b1"), ("Cid", ""), (None, "wait"), ("Ann", "a2"))


def words(messages: list[Message]) -> list[str]:
    """Role's first letter and text."""
    return [f"{message.role[0]} {message.content}" for message in messages]


def test_in_a_dialogue() -> None:
    """Its own as an assistant's, the others' as a user's with their names, the user's as they are; who said nothing is not seen."""
    assert words(seen(TALK, ANN, Mode.DIALOGUE)) == ["u topic", "a a1", "u Bob: b1", "u wait", "a a2"]


def test_on_a_panel() -> None:
    """The same, but what was said in one round comes after one's own answer: nobody had seen it."""
    assert words(seen(TALK, BOB, Mode.PANEL)) == ["u topic", "a b1", "u Ann: a1", "u wait", "u Ann: a2"]
    rounds = branch((None, "q"), ("Ann", "a1"), ("Bob", "b1"), ("Ann", "a2"), ("Cid", "c2"), ("Bob", "b2"))
    assert words(seen(rounds, BOB, Mode.PANEL)) == ["u q", "a b1", "u Ann: a1", "a b2", "u Ann: a2", "u Cid: c2"]
    assert words(seen(rounds, CID, Mode.PANEL)) == ["u q", "u Ann: a1", "u Bob: b1", "a c2", "u Ann: a2", "u Bob: b2"]


@pytest.mark.parametrize("mode", [Mode.COMPARE, Mode.JUDGE])
def test_side_by_side(mode: Mode) -> None:
    """The user's words and its own."""
    assert words(seen(TALK, BOB, mode)) == ["u topic", "a b1", "u wait"]


def test_users_and_assistants_alternate() -> None:
    """What several users say is one message, with all its images; the last word is a user's."""
    given = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a", "images": ["x"]},
        {"role": "user", "content": "b"},
        {"role": "user", "content": "c", "images": ["y"]},
        {"role": "assistant", "content": "d"},
    ]
    assert alternating(given) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a\n\nb\n\nc", "images": ["x", "y"]},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": GO_ON},
    ]
    much = alternating(
        [{"role": "user", "content": "x" * 10_000}] * 5_000
    )  # each is copied once, not once for each that follows
    assert len(much[0]["content"]) == 5_000 * 10_002 - 2
    assert alternating([]) == [{"role": "user", "content": GO_ON}]
    assert "images" in given[1]
    assert given[1]["content"] == "a"


def test_framing() -> None:
    """Who it is, among whom, what it began with, and what it was told itself; side by side only that."""
    told = ConversationSettings(mode=Mode.DIALOGUE, participants=list(ALL), topic="Cheese")
    text = framing(Participant(model="m", name="Bob", system="Be rude."), told)
    assert text is not None
    assert "You are Bob, in a conversation with Ann and Cid." in text
    assert "began with: Cheese" in text
    assert text.endswith("\n\nBe rude.")
    compared = ConversationSettings(mode=Mode.COMPARE, participants=list(ALL), topic="Cheese")
    assert framing(ANN, compared) is None
    assert framing(Participant(model="m", name="Ann", system="Be rude."), compared) == "Be rude."


def test_for_a_judge() -> None:
    """The question with its images, and each answer; each cut to its share."""
    judge = Participant(model="m", name="Judy", system="Count words.")
    (question,) = branch((None, "wait"))
    system, given = for_judge(judge, question, [("Ann", "aa"), ("Bob", "bb")], 1000)
    assert "Ann and Bob" in system["content"]
    assert system["content"].endswith("\n\nCount words.")
    assert given == {
        "role": "user",
        "content": "The question:\nwait\n\nThe answer of Ann:\naa\n\nThe answer of Bob:\nbb",
    }
    _, cut = for_judge(judge, question, [("Ann", "ä" * 5000), ("Bob", "bb")], 300)
    assert f"ä{CUT}\n\nThe answer of Bob:\nbb" in cut["content"]
    assert len(cut["content"]) < 400


@pytest.mark.parametrize(
    ("verdict", "name"),
    [
        ("Ann is right.\nWinner: Ann", "Ann"),
        ("**Winner:** Bob.", "Bob"),
        ("Winner: `bob`\n", "Bob"),
        ("winner: Ann\nNo, wait.\nWINNER: Bob", "Bob"),
        ("Winner: nobody", None),
        ("It is Ann.", None),
        ("", None),
        ("- Winner: «Ann»", "Ann"),
        ("Winner: C.", "C."),
        ("Winner: @d!", "@d!"),
        ("Winner: (e)", "(e)"),
        ("winner" + "\n " * 100_000 + "Ann wins", None),
    ],
)
def test_the_winner(verdict: str, name: str | None) -> None:
    """Whom the last such line names."""
    assert winner(verdict, ["Ann", "Bob", "C.", "@d!", "(e)"]) == name
