"""What loading a model costs everybody else."""

from typing import Any

import pytest

from gateway.fleet.demand import Demand
from gateway.fleet.ewma import Estimate
from gateway.fleet.host import Host, HostView, LoadedModel
from gateway.routing.averages import Averages
from gateway.routing.eviction import MODELS_LOADED, harm
from tests.builders import OTHER, TEXT
from tests.fleet.builders import SIZE, digest_of, loaded, snapshot, view

DIGEST, OTHERS = digest_of(TEXT), digest_of(OTHER)
NOW = 10.0
CONTEXT = (("num_ctx", 8192),)
MEASURED = {DIGEST: Estimate(load_seconds=4.0), OTHERS: Estimate(load_seconds=6.0)}


def host(name: str = "gpu1", vram: float = 0.0, **more: Any) -> HostView:
    """A host with so many times the memory of a model, whose loads were measured."""
    made = view(name, estimates=MEASURED, **more)
    fields = {field: getattr(made, field) for field in HostView.__struct_fields__}
    return HostView(**{**fields, "host": Host(name, "http://x", vram_bytes=int(vram * SIZE))})


def found(one: HostView, *more: HostView, demand: dict[Any, Demand] | None = None) -> float:
    """The harm of loading the usual model there, while all others are in demand."""
    busy = {(OTHERS, ()): Demand(10.0, NOW), (DIGEST, ()): Demand(10.0, NOW), (DIGEST, CONTEXT): Demand(10.0, NOW)}
    fleet = snapshot(one, *more, at=NOW, demand=busy if demand is None else demand)
    return harm(one, DIGEST, SIZE, fleet, Averages(fleet))


def many(count: int) -> list[LoadedModel]:
    """So many other models."""
    return [loaded(OTHER, digest=OTHERS), *(loaded(f"m{number}") for number in range(count - 1))]


HARM: dict[str, tuple[HostView, float]] = {
    "nothing is loaded": (host(), 0.0),
    "there is room beside it": (host(vram=2.0, holds=[OTHER]), 0.0),
    "there was room before": (host(holds=[OTHER], vram_seen=2 * SIZE), 0.0),
    "nobody knows how much there is": (host(holds=[OTHER]), 6.0),
    "there is no room": (host(vram=1.5, holds=[OTHER]), 6.0),
    "one of two must go, the other is not asked for": (host(vram=2.0, holds=[OTHER, "m1"]), 3.0),
    "memory for all, but no more models": (host(vram=9.0, holds=many(MODELS_LOADED)), 6.0 / MODELS_LOADED),
    "more models were seen at once": (host(vram=9.0, holds=many(MODELS_LOADED), models_seen=9), 0.0),
    "it is there with other options": (host(vram=9.0, holds=[TEXT], runners={DIGEST: CONTEXT}), 4.0),
    "it is being loaded": (host(vram=9.0, holds=[TEXT], loading={DIGEST: 1.0}, runners={DIGEST: ()}), 0.0),
}


@pytest.mark.parametrize(("one", "seconds"), HARM.values(), ids=HARM)
def test_harm(one: HostView, seconds: float) -> None:
    """Of each model that must go, how long it takes to load it again."""
    assert found(one) == pytest.approx(seconds)


def test_what_nobody_wants_may_go() -> None:
    """What was never asked for costs nothing; the less it is wanted, the less it costs."""
    one = host(holds=[OTHER])
    harms = [found(one, demand={(OTHERS, ()): Demand(rate, NOW)}) for rate in (0.0, 0.001, 0.01, 1.0)]
    assert harms == sorted(harms)
    assert (harms[0], found(one, demand={})) == (0.0, 0.0)
    assert found(one, demand={(OTHERS, CONTEXT): Demand(1.0, NOW)}) == 0.0, "they want it otherwise"
    assert found(one, demand={(OTHERS, ()): Demand(1.0, NOW - 1e4)}) == pytest.approx(0.0, abs=1e-6)


def test_a_second_copy_is_missed_less() -> None:
    """The wish is shared by all who hold the model."""
    one = host(holds=[OTHER])
    wish = {(OTHERS, ()): Demand(0.01, NOW)}
    assert found(one, host("gpu2", holds=[OTHER]), demand=wish) < found(one, host("gpu2"), demand=wish)
