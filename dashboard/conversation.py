"""A conversation of several models as pages show it: who spoke when, how fast, in which colour. Pure: rows of the gateway's in, values out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from dashboard.following import Following

Row = dict[str, Any]

COLORS = {
    "blue": "#4a6fa5",
    "orange": "#c9772b",
    "green": "#4d8f4a",
    "violet": "#7a6bb0",
    "red": "#a3475b",
    "yellow": "#b3912a",
    "primary": "#2f7d6b",
    "gray": "#6b7280",
}
"""Streamlit's words for a participant's colour, and what charts take for them. As many as there can be participants."""


class Figures(NamedTuple):
    """What one participant did, of what is known of its turns. ``rate``: tokens per second while it wrote."""

    name: str
    turns: int
    input_tokens: int
    output_tokens: int
    rate: float | None
    first: float | None  # seconds to the first token, on average
    seconds: float  # of all its turns


class Bar(NamedTuple):
    """A turn on the timeline, in seconds; pauses between rounds are left out."""

    name: str
    turn: int
    begin: float
    waited: float  # to the first token
    wrote: float
    tokens: int


def colors(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """A colour for each name: the chosen one, else the first that nobody has. The judge's is gray."""
    people = (settings or {}).get("participants") or []
    judge = (settings or {}).get("judge")
    chosen = [one.get("color") for one in people]
    free = [color for color in COLORS if color not in chosen]
    found = {one["name"]: one["color"] if one.get("color") in COLORS else free.pop(0) for one in people}
    return found | ({judge["name"]: "gray"} if judge else {})


def told(rows: Sequence[Row], following: Following) -> list[Row]:
    """The rows with what is known of turns that have ended, and that the database does not say yet."""
    ended = {}
    for turn, message in turns(following).items():
        if (end := _end(following, turn)) is not None:
            answer = following.answers[turn]
            kept = {name: end[name] for name in ("state", "error", "host", "usage", "timings")}
            ended[message] = kept | {"content": answer.content, "thinking": answer.thinking}
    return [row | ended.get(row["seq"], {}) if row["state"] == "streaming" else row for row in rows]


def turns(following: Following) -> dict[int, int]:
    """The turns that have begun, and the numbers of their messages."""
    return {event["turn"]: event["message"] for event in list(following.events) if event["event"] == "turn_start"}


def newest(following: Following) -> int:
    """The number of the last message that was told of; -1: of none."""
    return max((event["message"] for event in list(following.events) if "message" in event), default=-1)


def over(following: Following) -> set[int]:
    """The messages of the turns that have ended."""
    begun = turns(following)
    return {begun[turn] for turn in begun if _end(following, turn) is not None}


def _end(following: Following, turn: int) -> Row | None:
    ends = (one for one in list(following.events) if one["event"] == "turn_end" and one["turn"] == turn)
    return next(ends, None)


def rounds(rows: Sequence[Row]) -> list[list[Row]]:
    """Who spoke at once belongs together: they began in one moment."""
    found: list[list[Row]] = []
    for row in rows:
        before = found[-1][-1] if found else None
        if (
            before is not None
            and row["role"] == before["role"] == "assistant"
            and row["created_at"] == before["created_at"]
        ):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def figures(rows: Sequence[Row]) -> list[Figures]:
    """Of everybody who has said something, in the order in which they began."""
    names = dict.fromkeys(row["name"] for row in rows if row["name"] and row["role"] == "assistant")
    return [_figures(name, [row for row in rows if row["name"] == name and _took(row)]) for name in names]


def _figures(name: str, rows: Sequence[Row]) -> Figures:
    usage = [row["usage"] for row in rows if row["usage"]]
    measured = [row for row in rows if row["usage"] and (row["timings"] or {}).get("decode_seconds")]
    wrote = sum(row["timings"]["decode_seconds"] for row in measured)
    first = [row["timings"]["ttft_seconds"] for row in rows if (row["timings"] or {}).get("ttft_seconds") is not None]
    return Figures(
        name,
        len(rows),
        sum(one["input_tokens"] for one in usage),
        sum(one["output_tokens"] for one in usage),
        sum(row["usage"]["output_tokens"] for row in measured) / wrote if wrote else None,
        sum(first) / len(first) if first else None,
        sum(_took(row) for row in rows),
    )


def timeline(rows: Sequence[Row]) -> list[Bar]:
    """The turns that have ended, one behind the other, those of one round beside each other."""
    bars: list[Bar] = []
    begin, turn = 0.0, 0
    for spoken in rounds([row for row in rows if row["role"] == "assistant" and row["name"] and _took(row)]):
        for row in spoken:
            turn += 1
            took, waited = _took(row), (row["timings"] or {}).get("ttft_seconds") or 0.0
            tokens = row["usage"]["output_tokens"] if row["usage"] else 0
            bars.append(Bar(row["name"], turn, begin, min(waited, took), max(0.0, took - waited), tokens))
        begin += max(_took(row) for row in spoken)
    return bars


def _took(row: Row) -> float:
    """Seconds; 0 while it is being spoken."""
    if row["state"] == "streaming":
        return 0.0
    if (total := (row["timings"] or {}).get("total_seconds")) is not None:
        return float(total)
    return (datetime.fromisoformat(row["updated_at"]) - datetime.fromisoformat(row["created_at"])).total_seconds()
