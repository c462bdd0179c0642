"""What loading a model costs everybody else: what must leave memory for it will be missed (fleet/regret.py).

| what loading does there                        | who pays                                                      |
|------------------------------------------------|---------------------------------------------------------------|
| there is room beside what is loaded            | nobody                                                        |
| the model is there with other runner options   | who uses it so                                                |
| others must leave                              | who uses them, for the share of the memory that must be freed |
| a pinned model must leave                      | the same, and PINNED_SECONDS: it would be loaded again at once |

What there is room for: fleet/room.py.
"""

from typing import Final

from gateway.fleet.room import room_for
from gateway.fleet.snapshot import HostView

PINNED_SECONDS: Final = 600.0


def harm(view: HostView, digest: str, memory: int) -> float:
    """Seconds that others will wait because ``digest`` (``memory`` bytes when loaded) is loaded on this host now."""
    mine = view.regrets.get(digest, 0.0)
    seconds = mine if digest in view.loaded and digest not in view.loading else 0.0  # it is there, with other options
    room = room_for(view, digest, memory)
    if room.pins:
        seconds += PINNED_SECONDS
    return seconds + room.share * max(0.0, view.regret - mine)
