"""What a simulated host has and how fast it is."""

from dataclasses import dataclass

from simulator.models import SimulatedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """What a host has and how fast it is.

    `vram_bytes` 0 is a host without a GPU. `parallel` slots for each loaded model, `max_queue` requests waiting for a
    load, `max_loaded` models in memory, `context_length` tokens when a request does not say. `keep_alive_seconds` may
    be negative: for ever. `num_predict_default` tokens when a request sets no limit, None for a number by the seed.
    """

    models: tuple[str | SimulatedModel, ...] = ("llama3.2:1b", "smollm2:135m")
    vram_bytes: int = 24 * 1024**3
    parallel: int = 1
    max_queue: int = 512
    max_loaded: int = 3
    tokens_per_second: float = 50.0
    prefill_tokens_per_second: float = 2000.0
    load_bytes_per_second: float = 2e9
    pull_bytes_per_second: float = 1e9
    context_length: int = 4096
    keep_alive_seconds: float = 300.0
    version: str = "0.33.0"
    num_predict_default: int | None = None
