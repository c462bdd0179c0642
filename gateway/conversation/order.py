"""Who speaks when. Pure: the rounds of a conversation, in each of which everybody speaks at once.

dialogue    one a round, in the order they are named, after whoever spoke last
panel       all of them; in the last round perhaps not all
compare     all of them, once
judge       all of them, then the judge
"""

from collections.abc import Iterator

from gateway.errors import BadRequest
from gateway.participants import ConversationSettings, Mode, Participant

TURNS_MOST = 200
ROUNDS_USUAL = 2

Round = tuple[Participant, ...]


def check_turns(settings: ConversationSettings, turns: int | None) -> None:
    """Raises BadRequest where turns are not to be counted."""
    if turns is not None and settings.mode in (Mode.COMPARE, Mode.JUDGE):
        raise BadRequest(f"turns: in mode `{settings.mode}` everybody answers once")


def rounds(settings: ConversationSettings, turns: int | None, last: str | None) -> Iterator[Round]:
    """All rounds of ``turns`` turns. ``last``: the name of who spoke last before."""
    participants = tuple(settings.participants)
    if settings.mode in (Mode.COMPARE, Mode.JUDGE):
        return iter([participants, (settings.judge,)] if settings.judge else [participants])
    left = turns or ROUNDS_USUAL * len(participants)
    if settings.mode is Mode.PANEL:
        whole, rest = divmod(left, len(participants))
        return iter([participants] * whole + ([participants[:rest]] if rest else []))
    names = [one.name for one in participants]
    first = names.index(last) + 1 if last in names else 0
    return iter([(participants[(first + number) % len(participants)],) for number in range(left)])
