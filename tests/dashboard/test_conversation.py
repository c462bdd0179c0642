"""What is shown of a conversation: who spoke at once, what is known before the database says it, and the sums."""

import json
from typing import Any

import pytest

from dashboard.conversation import COLORS, Bar, colors, figures, newest, over, rounds, timeline, told, turns
from dashboard.following import Following

Row = dict[str, Any]


def at(second: int) -> str:
    """A time."""
    return f"2026-01-01T00:00:{second:02}Z"


def row(seq: int, name: str | None = None, second: int = 0, state: str = "done", **more: Any) -> Row:
    """A message; without a name the user's."""
    made: Row = {"seq": seq, "role": "assistant" if name else "user", "name": name, "state": state, "content": "words"}
    times = {"created_at": at(second), "updated_at": at(second + 5)}
    return made | times | {"usage": None, "timings": None, "thinking": None, "error": None, "host": None} | more


def spoke(tokens: int, first: float, total: float, decode: float) -> Row:
    """What a turn took."""
    timings = {"ttft_seconds": first, "total_seconds": total, "decode_seconds": decode}
    return {"usage": {"input_tokens": 10, "output_tokens": tokens}, "timings": timings}


def followed(*events: Row) -> Following:
    """What was told so far."""
    following = Following("c1")
    for event in events:
        following.take(json.dumps(event).encode())
    return following


BEGAN = {"event": "turn_start", "turn": 1, "participant": "Ann", "model": "m", "message": 1, "generation": "g"}
SAID = {"event": "delta", "turn": 1, "participant": "Ann", "content": "Hello", "thinking": "hm"}
ENDED = {"event": "turn_end", "turn": 1, "participant": "Ann", "state": "done", "error": None, "host": "gpu1"} | spoke(
    4, 0.1, 1.0, 0.5
)


def test_rounds() -> None:
    """Who began in one moment spoke at once; the user never does."""
    rows = [row(0), row(1, "Ann"), row(2, "Bob"), row(3, "Ann", 7), row(4, None, 9), row(5, "Ann", 9)]
    assert [[one["seq"] for one in spoken] for spoken in rounds(rows)] == [[0], [1, 2], [3], [4], [5]]


def test_told() -> None:
    """A turn that is over is shown whole, also while the database has less of it; one that runs is left as it is."""
    rows = [row(0), row(1, "Ann", state="streaming", content="He"), row(2, "Bob", state="streaming")]
    following = followed(BEGAN, SAID)
    assert told(rows, following) == rows
    assert (turns(following), over(following), newest(following)) == ({1: 1}, set(), 1)
    assert newest(followed()) == -1
    following = followed(BEGAN, SAID, ENDED)
    assert over(following) == {1}
    shown = told(rows, following)
    assert shown[::2] == rows[::2]
    assert (shown[1]["content"], shown[1]["thinking"], shown[1]["state"]) == ("Hello", "hm", "done")
    assert (shown[1]["host"], shown[1]["usage"]["output_tokens"]) == ("gpu1", 4)
    kept = [row(1, "Ann", content="as it is kept")]
    assert told(kept, following) == kept


def test_figures() -> None:
    """Sums of the turns that have ended; speed is that of all tokens, not of all turns."""
    rows = [
        row(0),
        row(1, "Ann", 0, **spoke(10, 0.5, 1.5, 1.0)),
        row(2, "Bob", 2, state="error", error="away"),
        row(3, "Ann", 4, **spoke(90, 1.5, 5.0, 3.0)),
        row(4, "Bob", 9, state="streaming"),
    ]
    ann, bob = figures(rows)
    assert (ann.turns, ann.input_tokens, ann.output_tokens) == (2, 20, 100)
    assert (ann.rate, ann.first, ann.seconds) == (25.0, 1.0, 6.5)
    assert (bob.turns, bob.output_tokens, bob.rate, bob.first, bob.seconds) == (1, 0, None, None, 5.0)


def test_timeline() -> None:
    """Rounds one behind the other, without the pauses between them."""
    rows = [
        row(0),
        row(1, "Ann", 0, **spoke(10, 0.5, 2.0, 1.0)),
        row(2, "Bob", 0, **spoke(20, 1.0, 3.0, 1.0)),
        row(3, None, 30),
        row(4, "Ann", 40, **spoke(30, 0.5, 1.0, 0.5)),
        row(5, "Bob", 50, state="streaming"),
    ]
    assert timeline(rows) == [
        Bar("Ann", 1, 0.0, 0.5, 1.5, 10),
        Bar("Bob", 2, 0.0, 1.0, 2.0, 20),
        Bar("Ann", 3, 3.0, 0.5, 0.5, 30),
    ]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["violet", None, "blue", None], ["violet", "orange", "blue", "green"]),
        (["#123456", "red"], ["blue", "red"]),
        ([None] * 8, list(COLORS)),
    ],
)
def test_colors(chosen: list[str | None], expected: list[str]) -> None:
    """The chosen ones; who has none, or one that cannot be shown, gets one that is free."""
    people = [{"name": str(number), "color": color} for number, color in enumerate(chosen)]
    assert list(colors({"participants": people, "judge": {"name": "Eve"}}).values()) == [*expected, "gray"]
    assert colors(None) == {}
