"""What runs, and that its garbage collector is watched."""

import gc
import os
from collections.abc import Iterator

import pytest

from gateway.process import GC_THRESHOLDS, build, package_version, tune_gc
from gateway.telemetry.metrics import Metrics
from tests.telemetry.builders import live


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector as it was."""
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks


@pytest.mark.usefixtures("collector")
def test_the_garbage_collector_is_watched() -> None:
    """Its pauses are measured, by generation."""
    metrics = Metrics(live, lambda _: True)
    tune_gc(metrics)
    assert gc.get_threshold() == GC_THRESHOLDS
    gc.collect(0)
    gc.collect(2)
    pauses = {labels[0]: child.count for labels, child in metrics.gc_pause.children().items()}
    assert pauses["0"] >= 1
    assert pauses["2"] >= 1


def test_the_version() -> None:
    """Is that of the distribution."""
    assert package_version().split(".")[0].isdigit()
    assert build() == ("compiled" if "compiled" in os.environ.get("PYTHONPATH", "") else "python")
