"""What loading a model costs everybody else: what must leave memory for it will be missed (fleet/regret.py).

| what loading does there                        | who pays                                                     |
|------------------------------------------------|--------------------------------------------------------------|
| there is room beside what is loaded            | nobody                                                       |
| the model is there with other runner options   | who uses it so                                               |
| others must leave                              | who uses them, for the share of the memory that must be freed |

No API tells how much memory a host has: it is what is configured, or else the most that was ever seen in use there.
"""

from gateway.fleet.snapshot import HostView

MODELS_LOADED = 3  # Ollama's own limit for each GPU, unless more were seen at once


def harm(view: HostView, digest: str, memory: int) -> float:
    """Seconds that others will wait because ``digest`` (``memory`` bytes when loaded) is loaded on this host now."""
    seconds = 0.0
    taken = view.vram_taken
    others = len(view.loaded)
    regret = view.regret
    same = view.loaded.get(digest)
    if same is not None:
        others -= 1
        taken -= same.vram
        mine = view.regrets.get(digest, 0.0)
        regret -= mine
        if digest not in view.loading:  # it is there, with other options
            seconds = mine
    if not others:
        return seconds
    short = memory + taken - max(view.host.vram_bytes, view.vram_seen)
    if short <= 0 and others < max(MODELS_LOADED, view.models_seen):
        return seconds
    share = max(short / taken if taken else 1.0, 1.0 / others)
    return seconds + min(1.0, share) * max(0.0, regret)
