"""What runs: which version, built how; and the garbage collector of its process."""

import gc
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `corral --version` needs none of it
    from gateway.telemetry.metrics import Metrics

GC_THRESHOLDS = (50_000, 20, 20)  # docs/decisions/0002


@cache
def package_version() -> str:
    """The installed distribution's version; its files are read once."""
    try:
        return version("ollama-corral")
    except PackageNotFoundError:
        return "0"


def build() -> str:
    """``compiled`` where the request's path runs as C (docs/decisions/0007), else ``python``."""
    found = find_spec("gateway.relay.relay")
    return "python" if found is None or str(found.origin).endswith(".py") else "compiled"


def tune_gc(metrics: "Metrics") -> None:
    """Take what lives for ever out of the collector's way, collect rarely, and measure its pauses."""
    began = 0.0
    children = [metrics.gc_pause.labels(str(generation)) for generation in range(3)]

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            children[info["generation"]].observe(time.perf_counter() - began)

    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.callbacks.append(watch)
