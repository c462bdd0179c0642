"""Whether a model fits into a host's memory beside what is there. No API tells how much memory a host has: it is what is configured, or else the
most that was ever seen in use there.
"""

from typing import NamedTuple

from gateway.fleet.snapshot import HostView

MODELS_LOADED = 3  # Ollama's own limit for each GPU, unless more were seen at once


class Room(NamedTuple):
    """``others``: models that are loaded beside it; ``share``: of their memory, what must be freed, 0 where it fits; ``pins``: what must
    leave cannot do so without a pinned one, as far as is known: not before the memory is configured, or a model had to leave for another."""

    others: int
    share: float
    pins: bool


def room_for(view: HostView, digest: str, memory: int) -> Room:
    """For a model that takes ``memory`` bytes when it is loaded."""
    same = view.loaded.get(digest)
    others, taken = len(view.loaded), view.vram_taken
    if same is not None:
        others, taken = others - 1, taken - same.vram
    short = memory + taken - max(view.host.vram_bytes, view.vram_seen)
    if not others or (short <= 0 and others < max(MODELS_LOADED, view.models_seen)):
        return Room(others, 0.0, False)
    share = min(1.0, max(short / taken if taken else 1.0, 1.0 / others))
    if not view.pinned or not (view.host.vram_bytes or view.full):
        return Room(others, share, False)
    held = [model.vram for key in view.pinned if key != digest and (model := view.loaded.get(key)) is not None]
    return Room(others, share, bool(held) and (len(held) == others or short > taken - sum(held)))
