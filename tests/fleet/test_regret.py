"""What it would cost others if a model left memory."""

from typing import Any

import pytest

from gateway.fleet.demand import Demand
from gateway.fleet.ewma import Estimate
from gateway.fleet.regret import default_load_seconds, regrets
from tests.builders import OTHER, TEXT
from tests.fleet.builders import SIZE, digest_of, loaded

DIGEST, OTHERS = digest_of(TEXT), digest_of(OTHER)
CONTEXT = (("num_ctx", 8192),)
NOW = 100.0
BUSY = {(DIGEST, ()): Demand(10.0, NOW)}


def regret(**changes: Any) -> float:
    """Of the usual model, which is asked for a lot and loads in 4 s."""
    usual: dict[str, Any] = {
        "loaded": {DIGEST: loaded(TEXT)},
        "runners": {},
        "estimates": {DIGEST: Estimate(load_seconds=4.0)},
        "load_rate": None,
        "demand": BUSY,
        "copies": {DIGEST: 1},
        "now": NOW,
    }
    return regrets(**(usual | changes))[DIGEST]


def test_a_model_in_demand() -> None:
    """Costs its load: as measured, at the host's pace, or as a guess."""
    assert regret() == pytest.approx(4.0)
    assert regret(estimates={}, load_rate=SIZE / 7.0) == pytest.approx(7.0)
    assert regret(estimates={}) == pytest.approx(default_load_seconds(SIZE))


def test_what_nobody_wants_may_go() -> None:
    """The less it is wanted, the less it costs: with the options that it is loaded with."""
    found = [regret(demand={(DIGEST, ()): Demand(rate, NOW)}) for rate in (0.0, 0.001, 0.01, 1.0)]
    assert found == sorted(found)
    assert found[0] == regret(demand={}) == 0.0
    assert regret(runners={DIGEST: CONTEXT}) == 0.0, "they want it otherwise"
    assert regret(runners={DIGEST: CONTEXT}, demand={(DIGEST, CONTEXT): Demand(10.0, NOW)}) == pytest.approx(4.0)
    assert regret(now=NOW + 1e4) == pytest.approx(0.0, abs=1e-6)


def test_a_second_copy_is_missed_less() -> None:
    """The wish is shared by all who hold the model."""
    wish = {(DIGEST, ()): Demand(0.01, NOW)}
    assert regret(demand=wish, copies={DIGEST: 2}) < regret(demand=wish)
