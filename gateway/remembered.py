"""What was measured, as it outlives the gateway: the fleet measures it (fleet/memory.py), the store keeps it (store/measured.py)."""

from enum import StrEnum
from typing import NamedTuple


class What(StrEnum):
    """What of: a model on a host, a host (no digest), or a model wherever it is (no host)."""

    LOAD_SECONDS = "load_seconds"  # of a model on a host
    PREFILL_RATE = "prefill_rate"  # tokens per second
    DECODE_RATE = "decode_rate"  # tokens per second
    SERVICE_SECONDS = "service_seconds"  # of a host: how long a lease is held
    LOAD_RATE = "load_rate"  # bytes per second
    VRAM_BYTES = "vram_bytes"  # the most that models were seen to use at once
    PARALLEL = "parallel"  # of a model on a host: requests that it runs at once
    MODELS = "models"  # the most that were seen loaded at once
    MODELS_MOST = "models_most"  # how many it keeps loaded at most, as far as its memory is not the reason
    OUTPUT_TOKENS = "output_tokens"  # of a model: how long its answers are
    MEMORY_BYTES = "memory_bytes"  # how much memory it takes


MOST = frozenset((What.VRAM_BYTES, What.MODELS))
"""The largest value that was seen; all else are averages, or what was seen last."""


class Measured(NamedTuple):
    """One value. ``url``: where the host was then; ``weight``: how many samples it rests on, of MOST the value itself; ``at``: when it was
    measured last, monotonic seconds."""

    host: str
    digest: str
    what: What
    url: str
    value: float
    weight: float
    at: float
