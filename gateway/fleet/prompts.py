"""Which prompts a loaded model still knows. A runner has a cache for each of its slots, and Corral remembers what went into them.

A prompt is known by a chain of hashes, one for each block of it from the beginning: two prompts share as many blocks as their chains do.
"""

Chain = tuple[int, ...]
SIMILAR = 0.1  # of a prompt: a slot that knows less is no better than any other


def shared(one: Chain, other: Chain) -> int:
    """How many blocks two prompts have in common."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def best(held: tuple[Chain, ...], chain: Chain) -> int:
    """The most blocks of ``chain`` that any slot knows."""
    most = 0
    for known in held:
        if known and known[0] == chain[0]:
            most = max(most, shared(known, chain))
    return most


def after(held: tuple[Chain, ...], chain: Chain, slots: int) -> tuple[Chain, ...]:
    """What the slots know when this prompt has run, the latest last: it took the slot that knew most of it, else the one unused for longest."""
    most, place = 0, -1
    for index, slot in enumerate(held):
        known = shared(slot, chain)
        if known > most:
            most, place = known, index
    if most <= SIMILAR * len(chain):
        place = 0 if len(held) >= slots else -1
    kept = held if place < 0 else held[:place] + held[place + 1 :]
    return (*kept[max(0, len(kept) - slots + 1) :], chain)
