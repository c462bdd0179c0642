"""Who takes part in a conversation of several models, and how it goes: what is kept of it in its session's ``settings``. Values, and what must hold
between them."""

import unicodedata
from collections import Counter
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.doc import doc
from gateway.errors import BadRequest
from gateway.messages import OPTIONS_MOST_BYTES, PLAIN, Model, Options, PinnedHost, SystemPrompt

PARTICIPANTS_LEAST = 2
PARTICIPANTS_MOST = 8
PHRASES_MOST = 16
SETTINGS_MOST_BYTES = 128 * 1024  # as JSON: lists of sessions have them
TOPIC_KEPT = 500  # characters: for who cannot see the first message any more


class Mode(StrEnum):
    """How a conversation goes."""

    DIALOGUE = "dialogue"  # one after the other, each sees all that was said
    PANEL = "panel"  # all at once, and then again, when each has seen what the others said
    COMPARE = "compare"  # all at once, none sees the others
    JUDGE = "judge"  # the same, and then one decides


class EndReason(StrEnum):
    """Why a conversation ended."""

    TURNS = "turns"
    STOP_PHRASE = "stop_phrase"
    TOKEN_BUDGET = "token_budget"  # noqa: S105 - tokens of a model
    CANCELLED = "cancelled"
    ERROR = "error"


class Failing(StrEnum):
    """What becomes of the others when one fails."""

    CONTINUE = "continue"
    STOP = "stop"


class Participant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that takes part."""

    model: Model
    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^:]*(?![\s\S])")] | None,
        doc("what the others know it by; else its model's name, with a number where several would have it"),
    ] = None
    host: Annotated[PinnedHost | None, doc("the host that its turns go to; null: whichever is best")] = None
    color: Annotated[
        Annotated[str, Meta(max_length=32, pattern=PLAIN)] | None,
        doc("in which it is shown: kept for who shows it, in words of their own"),
    ] = None
    system: Annotated[SystemPrompt | None, doc("its own system prompt")] = None
    options: Options = {}
    think: Annotated[bool | str | UnsetType | None, doc("as `/api/chat` takes it")] = UNSET


Phrase = Annotated[str, Meta(min_length=1, max_length=200)]


class ConversationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation as it is kept."""

    mode: Annotated[Mode, doc("who speaks when")]
    participants: Annotated[
        list[Participant], doc("who speaks", min_length=PARTICIPANTS_LEAST, max_length=PARTICIPANTS_MOST)
    ]
    judge: Annotated[Participant | None, doc("who decides, in mode `judge`")] = None
    topic: Annotated[str, doc("what it is about", max_length=TOPIC_KEPT)] = ""
    stop: Annotated[list[Phrase], doc("phrases that end it", max_length=PHRASES_MOST)] = []
    on_error: Annotated[Failing, doc("what becomes of it when one of them fails")] = Failing.CONTINUE


def settled(settings: ConversationSettings) -> ConversationSettings:
    """The same, everybody with a name of their own. Raises BadRequest if two chose one, or a judge is missing or has nothing to decide."""
    if (settings.mode is Mode.JUDGE) != (settings.judge is not None):
        raise BadRequest(
            "judge: name the model that decides"
            if settings.judge is None
            else "judge: only in mode `judge` one decides"
        )
    everybody = [_bounded(one) for one in (*settings.participants, *([settings.judge] if settings.judge else []))]
    if len(msgspec.json.encode(everybody)) > SETTINGS_MOST_BYTES:
        raise BadRequest(f"participants: all together they are over {SETTINGS_MOST_BYTES} bytes")
    taken = Counter(one.name.casefold() for one in everybody if one.name)
    if twice := [one.name for one in everybody if one.name and taken[one.name.casefold()] > 1]:
        raise BadRequest(f"participants: two are named {twice[0]!r}")
    named: list[Participant] = []
    for one in everybody:
        name = one.name or _free(_short(one.model), taken)
        taken[name.casefold()] += 1
        named.append(msgspec.structs.replace(one, name=name))
    judge = named.pop() if settings.judge else None
    return msgspec.structs.replace(settings, participants=named, judge=judge)


def _bounded(one: Participant) -> Participant:
    """With its name as it is compared: in one spelling, nothing in it that cannot be seen."""
    if len(msgspec.json.encode(one.options)) > OPTIONS_MOST_BYTES:
        raise BadRequest(f"participants: the options of {one.model} are over {OPTIONS_MOST_BYTES} bytes")
    if one.name is None:
        return one
    name = unicodedata.normalize("NFC", one.name).strip()
    if not name or not name.isprintable():
        raise BadRequest(f"participants: {one.name!r} is no name: it has characters that cannot be seen")
    return msgspec.structs.replace(one, name=name)


def _short(model: str) -> str:
    """A model's name without what would be read as the end of one."""
    plain = "".join(sign if sign.isprintable() and sign != ":" else " " for sign in model.removesuffix(":latest"))
    return " ".join(plain.split())[:60] or "model"


def _free(name: str, taken: Counter[str]) -> str:
    number, free = 1, name
    while taken[free.casefold()]:
        number += 1
        free = f"{name} {number}"
    return free
