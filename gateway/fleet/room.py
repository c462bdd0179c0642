"""Whether a model fits into a host's memory beside what is there, and what must leave if it does not. No API tells how much memory a host has: it is what
is configured, or else the most that was ever seen in use there.
"""

from collections.abc import Collection
from typing import NamedTuple

from gateway.fleet.host import LoadedModel
from gateway.fleet.snapshot import HostView

LEFT_SECONDS = 10.0  # Ollama waits 5 s at most for the memory of one that has left
GUESSED_SECONDS = 1.0
MODELS_LOADED = 3  # Ollama's own limit for each GPU, unless more were seen at once


class Room(NamedTuple):
    """``others``: models that are loaded beside it, and stay so far; ``share``: of their memory, what must be freed, 0 where it fits; ``pins``: what
    must leave cannot do so without a pinned one, as far as is known: not before the memory is configured, or a model had to leave for another.
    ``short``: bytes that must be freed at least, ``beyond``: models that must leave at least."""

    others: int
    share: float
    pins: bool
    short: int
    beyond: int


def room_for(view: HostView, digest: str, memory: int) -> Room:
    """For a model that takes ``memory`` bytes when it is loaded."""
    others, taken = len(view.loaded) - len(view.leaving), view.vram_taken
    same = _staying(view, digest)
    if same is not None:
        others, taken = others - 1, taken - same.vram
    return _room(view, digest, memory, others, taken)


def _room(view: HostView, digest: str, memory: int, others: int, taken: int) -> Room:
    short = memory + taken - max(view.host.vram_bytes, view.vram_seen)
    beyond = others + 1 - most_loaded(view.models_most, view.models_seen)
    if not others or (short <= 0 and beyond <= 0):
        return Room(others, 0.0, False, 0, 0)
    share = min(1.0, max(short / taken if taken else 1.0, max(1, beyond) / others))
    if not view.pinned or not (view.host.vram_bytes or view.full):
        return Room(others, share, False, short, beyond)
    held = [model.vram for key in view.pinned if key != digest and (model := _staying(view, key)) is not None]
    return Room(others, share, bool(held) and (len(held) == others or short > taken - sum(held)), short, beyond)


def most_loaded(found: int, seen: int) -> int:
    """How many models a host keeps loaded at once: ``found`` out by one that left though there was memory (0: none has), else Ollama's own limit, unless more were seen."""
    return found or max(MODELS_LOADED, seen)


def leaving_for(
    view: HostView, digest: str, memory: int, busy: Collection[str], age: float, asked: frozenset[str] = frozenset()
) -> frozenset[str]:
    """The models that may have to leave so that ``digest`` can be loaded, in the order in which Ollama has them leave: those that nobody uses, those of
    them that are to stay for long (pinned ones) last, then those in use (``busy``), as soon as they are not.

    Among equals Ollama goes by the names of files, which nobody is told: where one of two must go, either may. ``age``: seconds from the load's begin to
    this look at the host. Those that nobody uses stay if they are still there when they have had the time to go; that is less where it is a guess
    that there is no room, as the memory is not known. ``asked``: those that had to leave before this look: Ollama waits for the one that it has asked to
    leave, even if another is free meanwhile.
    """
    others = [key for key in view.loaded if key != digest]  # what may have left for another load may be there still
    room = _room(view, digest, memory, len(others), sum([view.loaded[key].vram for key in others]))
    if room.share == 0.0:
        return frozenset()
    known = view.host.vram_bytes or view.full or room.beyond > 0
    settled = age >= (LEFT_SECONDS if known else GUESSED_SECONDS)
    leaving: list[str] = []
    idle = [key for key in others if key not in busy]
    groups = [
        [] if settled else [key for key in idle if key not in view.pinned],
        [] if settled else [key for key in idle if key in view.pinned],
        [key for key in others if key in busy],
    ]
    for group in groups:
        leaving += group
        if len(leaving) >= room.beyond and sum([view.loaded[key].vram for key in leaving]) >= room.short:
            break
    return frozenset(leaving) | (frozenset() if settled else asked.intersection(others))


def _staying(view: HostView, digest: str) -> LoadedModel | None:
    return None if digest in view.leaving else view.loaded.get(digest)
