"""Which prompts a loaded model still knows. A runner has a cache for each of its slots, and Corral remembers what went into them.

A prompt is known by a chain of hashes, one for each block of it from the beginning: two prompts share as many blocks as their chains do.
"""

from math import exp
from typing import Final, NamedTuple

Chain = tuple[int, ...]
SIMILAR: Final = 0.1  # of a prompt: a slot that knows less is no better than any other
CONTINUES: Final = 0.75  # of conversations: that there is another turn
SLOTS_MOST: Final = 32  # of one model on one host that are remembered: each decision looks at all of them
PAUSE_SECONDS: Final = 90.0  # one that has been silent for so long is a third as likely to go on


class Known(NamedTuple):
    """What one slot knows, and when it was last used."""

    chain: Chain
    at: float


def shared(one: Chain, other: Chain) -> int:
    """How many blocks two prompts have in common."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def best(slots: tuple[Known, ...], chain: Chain) -> int:
    """The most blocks of ``chain`` that any slot knows."""
    most = 0
    for known in slots:
        if known.chain and known.chain[0] == chain[0]:
            most = max(most, shared(known.chain, chain))
    return most


def missed(slots: tuple[Known, ...], count: int, now: float) -> float:
    """Blocks that somebody will have to have read again if a prompt comes that no slot knows: those of the slot unused for longest, if none is empty."""
    if len(slots) < count or not slots[0].chain:
        return 0.0
    return len(slots[0].chain) * CONTINUES * exp(-max(0.0, now - slots[0].at) / PAUSE_SECONDS)


def after(slots: tuple[Known, ...], chain: Chain, count: int, now: float) -> tuple[Known, ...]:
    """What ``count`` slots know when this prompt has run, the latest last: it took the slot that knew most of it, else the one unused for longest."""
    if not slots and not chain:  # slots that know nothing, and were used before all others, need not be counted
        return slots
    count = min(count, SLOTS_MOST)
    most, place = 0, -1
    first = chain[0] if chain else None
    for index, known in enumerate(slots):
        if known.chain and known.chain[0] == first and (alike := shared(known.chain, chain)) > most:
            most, place = alike, index
    if most <= SIMILAR * len(chain):
        place = 0 if len(slots) >= count else -1
    kept = slots if place < 0 else slots[:place] + slots[place + 1 :]
    return (*kept[max(0, len(kept) - count + 1) :], Known(chain, now))
