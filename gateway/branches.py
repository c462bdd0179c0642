"""The tree that a session's messages make. ``Parents``: number → number of the message before it, always lower; None: it is a first one."""

from collections.abc import Mapping

Parents = Mapping[int, int | None]


def path(parents: Parents, leaf: int) -> list[int]:
    """The messages from the first one to ``leaf``."""
    found: list[int] = []
    at: int | None = leaf
    while at is not None:
        found.append(at)
        at = parents[at]
    return found[::-1]


def newest_end(parents: Parents, through: int) -> int:
    """The end of the newest branch that goes through a message. What was written last below it has nothing below itself."""
    below = {through}
    for seq in sorted(parents):
        if parents[seq] in below:
            below.add(seq)
    return max(below)


def ends(parents: Parents) -> list[int]:
    """The last message of every branch, newest first."""
    inner = set(parents.values())
    return sorted((seq for seq in parents if seq not in inner), reverse=True)


def fork(parents: Parents, leaf: int, shown: frozenset[int]) -> int | None:
    """The last message that the branch of ``leaf`` shares with the one that is ``shown``; None: not even the first."""
    return max((seq for seq in path(parents, leaf) if seq in shown), default=None)
