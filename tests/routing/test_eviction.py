"""What loading a model costs everybody else."""

from typing import Any

import pytest

from gateway.fleet.host import Host
from gateway.fleet.room import MODELS_LOADED
from gateway.fleet.snapshot import HostView
from gateway.routing.eviction import PINNED_SECONDS, harm
from tests.builders import OTHER, TEXT
from tests.fleet.builders import SIZE, changed, digest_of, view

DIGEST, OTHERS = digest_of(TEXT), digest_of(OTHER)


def host(vram: float = 0.0, **more: Any) -> HostView:
    """A host with so many times the memory of a model, where the other model would be missed for 6 s and the usual one for 4."""
    made = view(**more)
    missed = {digest: {OTHERS: 6.0, DIGEST: 4.0}.get(digest, 0.0) for digest in made.loaded}
    return changed(
        made,
        host=Host("gpu1", "http://x", vram_bytes=int(vram * SIZE)),
        vram_taken=len(made.loaded) * SIZE,
        regrets=missed,
        regret=sum(missed.values()),
    )


CROWD = [OTHER, *(f"m{number}" for number in range(MODELS_LOADED - 1))]
HARM: dict[str, tuple[HostView, float]] = {
    "nothing is loaded": (host(), 0.0),
    "there is room beside it": (host(vram=2.0, holds=[OTHER]), 0.0),
    "there was room before": (host(holds=[OTHER], vram_seen=2 * SIZE), 0.0),
    "nobody knows how much there is": (host(holds=[OTHER]), 6.0),
    "there is no room": (host(vram=1.5, holds=[OTHER]), 6.0),
    "one of two must go, the other is not asked for": (host(vram=2.0, holds=[OTHER, "m1"]), 3.0),
    "memory for all, but no more models": (host(vram=9.0, holds=CROWD), 6.0 / MODELS_LOADED),
    "more models were seen at once": (host(vram=9.0, holds=CROWD, models_seen=9), 0.0),
    "memory for all, but one model at a time": (host(vram=9.0, holds=[OTHER], models_most=1), 6.0),
    "it is there with other options": (host(vram=9.0, holds=[TEXT]), 4.0),
    "it is there with other options, beside another": (host(vram=9.0, holds=[TEXT, OTHER]), 4.0),
    "it is being loaded": (host(vram=9.0, holds=[TEXT], loading={DIGEST: 1.0}), 0.0),
    "the one that must go is pinned": (host(vram=1.5, holds=[OTHER], pinned=frozenset([OTHERS])), 6.0 + PINNED_SECONDS),
    "one must go, another is pinned": (host(vram=2.0, holds=[OTHER, "m1"], pinned=frozenset([OTHERS])), 3.0),
    "two must go, one is pinned": (
        host(vram=1.0, holds=[OTHER, "m1"], pinned=frozenset([OTHERS])),
        6.0 + PINNED_SECONDS,
    ),
    "there is room beside the pinned one": (host(vram=2.0, holds=[OTHER], pinned=frozenset([OTHERS])), 0.0),
    "it is pinned itself": (host(vram=1.5, holds=[OTHER], pinned=frozenset([DIGEST])), 6.0),
}


@pytest.mark.parametrize(("one", "seconds"), HARM.values(), ids=HARM)
def test_harm(one: HostView, seconds: float) -> None:
    """Of what must go, what it will be missed for."""
    assert harm(one, DIGEST, SIZE) == pytest.approx(seconds)
