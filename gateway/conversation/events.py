"""What is told of a conversation while it runs: one line of JSON for each event, kept for whoever reads it, as an answer's lines are."""

from typing import Annotated

import msgspec

from gateway.doc import doc
from gateway.messages import MessageState, MessageUsage, Number, Timings
from gateway.participants import EndReason, Mode

_encode = msgspec.json.Encoder().encode


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """A participant, as it is told."""

    name: Annotated[str, doc("what the others know it by")]
    model: Annotated[str, doc("its model")]
    host: Annotated[str | None, doc("the host that its turns go to; null: whichever is best")]


class Started(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="start"):
    """The first event."""

    id: Annotated[str, doc("the conversation's id while it runs: its events are read, and it is stopped, by it")]
    session: Annotated[str, doc("the session's id")]
    mode: Annotated[Mode, doc("how it goes")]
    participants: Annotated[list[Speaker], doc("in their order; a judge comes last")]


class UserSaid(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="said"):
    """The user said something, before the turns that follow."""

    message: Annotated[Number, doc("its number in the session")]
    content: Annotated[str, doc("what was said")]


class TurnBegan(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="turn_start"):
    """Somebody's turn begins."""

    turn: Annotated[int, doc("its number, from 1", ge=1)]
    participant: Annotated[str, doc("whose it is")]
    model: Annotated[str, doc("that answers")]
    message: Annotated[Number, doc("the answer's number in the session")]
    generation: Annotated[str, doc("its generation's id")]


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="delta"):
    """Something more is said, or thought before."""

    turn: Annotated[int, doc("the turn's number", ge=1)]
    participant: Annotated[str, doc("whose it is")]
    content: Annotated[str, doc("what is said")] = ""
    thinking: Annotated[str, doc("what is thought")] = ""


class TurnEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="turn_end"):
    """A turn is over."""

    turn: Annotated[int, doc("the turn's number", ge=1)]
    participant: Annotated[str, doc("whose it was")]
    state: Annotated[MessageState, doc("`done`, `stopped` or `error`")]
    error: Annotated[str | None, doc("why it failed")]
    host: Annotated[str | None, doc("where it ran")]
    usage: Annotated[MessageUsage | None, doc("tokens of the answer")]
    timings: Annotated[Timings | None, doc("where its time went")]
    tokens_per_second: Annotated[float | None, doc("how fast it was written")]


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="end"):
    """The last event."""

    reason: Annotated[
        EndReason,
        doc(
            "`turns`: all were taken; `stop_phrase`: somebody said one; `token_budget`: it is used up; `cancelled`; `error`"
        ),
    ]
    error: Annotated[str | None, doc("what went wrong, where the reason is `error`")]
    turns: Annotated[int, doc("how many were taken", ge=0)]
    usage: Annotated[MessageUsage, doc("of all of them")]
    winner: Annotated[str | None, doc("whom the judge named")]


Event = Started | UserSaid | TurnBegan | Delta | TurnEnded | Ended


def line(event: Event) -> bytes:
    """An event as it is told."""
    return _encode(event) + b"\n"
