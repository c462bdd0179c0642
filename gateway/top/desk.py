"""Who sits before the screen: what they have chosen, what they are asked, what they were told. Pure: a key makes another desk and perhaps an act."""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from gateway.top.keys import Key
from gateway.top.look import Look


class Verb(StrEnum):
    """What a key can lead to."""

    CANCEL = "cancel"  # a generation
    DRAIN = "drain"  # a host
    RESUME = "resume"  # a host
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Act:
    """``target``: a generation's id or a host's name; ``words`` say which, for people."""

    verb: Verb
    target: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A line that can be chosen: a host by name, a generation by id."""

    name: str
    host: bool


@dataclass(frozen=True, slots=True)
class Desk:
    """``place``: where among all lines the choice stands, so that its neighbour can take over when it goes."""

    choice: Choice | None = None
    place: int = 0
    question: Act | None = None
    note: str = ""


def choices(look: Look | None) -> list[Choice]:
    """All lines, from top to bottom."""
    if look is None:
        return []
    hosts = [Choice(host.name, host=True) for host in look.fleet.hosts]
    return hosts + [Choice(generation.id, host=False) for generation in look.generations]


def settled(desk: Desk, look: Look | None) -> Desk:
    """The desk before a new look: a choice that is gone passes to its neighbour, a question about it is withdrawn."""
    lines = choices(look)
    question = desk.question
    if question and Choice(question.target, host=question.verb is not Verb.CANCEL) not in lines:
        desk = dataclasses.replace(desk, question=None, note=f"{question.words}: it is gone")
    if desk.choice in lines:
        return dataclasses.replace(desk, place=lines.index(desk.choice))
    place = max(0, min(desk.place, len(lines) - 1))
    return dataclasses.replace(desk, place=place, choice=lines[place] if lines else None)


def pressed(desk: Desk, key: str, look: Look | None) -> tuple[Desk, Act | None]:
    """What a key does.

    1. a question stands: ``y`` is yes, anything else no; 2. quit; 3. move; 4. ``c`` on a generation and ``d`` on a host ask once, a
    host that drains is brought back at once; 5. any other key takes the note away.
    """
    desk = dataclasses.replace(desk, note="")
    if desk.question:
        answered = dataclasses.replace(desk, question=None)
        return answered, desk.question if key in ("y", "Y") else None
    if key in ("q", "Q"):
        return desk, Act(Verb.QUIT)
    lines = choices(look)
    if not lines:
        return desk, None
    if key in (Key.UP, Key.DOWN, "k", "j"):
        return _moved(desk, lines, desk.place + (1 if key in (Key.DOWN, "j") else -1)), None
    if key == Key.TAB:
        return _moved(desk, lines, _other_table(desk, lines)), None
    if key in ("c", "d"):
        return _asked(desk, key, look)
    return desk, None


def _moved(desk: Desk, lines: list[Choice], place: int) -> Desk:
    place = max(0, min(place, len(lines) - 1))
    return dataclasses.replace(desk, place=place, choice=lines[place])


def _other_table(desk: Desk, lines: list[Choice]) -> int:
    """The first line of the other table."""
    at_host = desk.choice is not None and desk.choice.host
    return next((place for place, line in enumerate(lines) if line.host is not at_host), desk.place)


def _asked(desk: Desk, key: str, look: Look | None) -> tuple[Desk, Act | None]:
    assert look is not None
    name = desk.choice.name if desk.choice else ""
    if key == "c":
        for generation in look.generations:
            if desk.choice == Choice(generation.id, host=False):
                at = f" on {generation.host}" if generation.host else ", which waits"
                words = f"{short(name)} ({generation.model}{at})"
                return dataclasses.replace(desk, question=Act(Verb.CANCEL, name, words)), None
        return dataclasses.replace(desk, note="choose a generation to cancel, with the arrows"), None
    for host in look.fleet.hosts:
        if desk.choice == Choice(host.name, host=True):
            if host.draining:
                return desk, Act(Verb.RESUME, name, name)
            return dataclasses.replace(desk, question=Act(Verb.DRAIN, name, name)), None
    return dataclasses.replace(desk, note="choose a host to drain, with the arrows"), None


def short(generation: str) -> str:
    """The end of a generation's id: what tells it from those of the same minute."""
    return generation[-6:]
