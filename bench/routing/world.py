"""What there is in a scenario: models, and hosts that differ in speed and memory. Figures are those of ordinary GPUs, rounded."""

from typing import NamedTuple

RUNNER_SECONDS = 1.5  # until a runner has started, before it reads the first byte
MEMORY_OVERHEAD = 1.1
KV_BYTES_PER_TOKEN_AND_GB = 26_000.0  # of context, for each GB of model
CONTEXT = 4096  # where a request does not say


class Model(NamedTuple):
    """``size`` in bytes on disk; ``parameters`` in billions."""

    name: str
    size: float
    parameters: float

    def memory(self, context: int) -> int:
        """Bytes of GPU memory with so much context."""
        return int(self.size * MEMORY_OVERHEAD + self.size / 1e9 * KV_BYTES_PER_TOKEN_AND_GB * context)


class Card(NamedTuple):
    """A host's hardware. ``bandwidth``: bytes of memory it reads per second (an output token reads the model once); ``compute``: prompt
    tokens per second for a model of a billion parameters; ``disk``: bytes per second of a load."""

    vram: float
    bandwidth: float
    compute: float
    disk: float

    def load_seconds(self, model: Model) -> float:
        """From disk into memory."""
        return RUNNER_SECONDS + model.size / self.disk

    def prefill_rate(self, model: Model) -> float:
        """Prompt tokens per second."""
        return self.compute / model.parameters

    def decode_rate(self, model: Model) -> float:
        """Output tokens per second."""
        return self.bandwidth / model.size


SMALL = Card(12e9, 210e9, 9_000, 0.5e9)
MEDIUM = Card(16e9, 300e9, 16_000, 1.2e9)
LARGE = Card(24e9, 600e9, 32_000, 2.0e9)
HUGE = Card(48e9, 600e9, 40_000, 2.5e9)


class Place(NamedTuple):
    """One host. It has all models that fit into its memory. ``slots`` of each model are what it really runs at once; ``told`` is how many the gateway is told
    of, 0: it has to find out. ``down``: seconds between which it is dead."""

    name: str
    card: Card
    slots: int
    down: tuple[float, float] | None = None
    told: int | None = None

    def fits(self, model: Model) -> bool:
        """Whether it can serve the model from its GPU."""
        return model.memory(CONTEXT) <= self.card.vram


CATALOGUE = (
    Model("llama3.1:8b", 4.9e9, 8.0),
    Model("qwen2.5-coder:7b", 4.7e9, 7.6),
    Model("phi4:14b", 9.1e9, 14.7),
    Model("gemma3:4b", 3.3e9, 4.3),
    Model("llama3.2:1b", 1.3e9, 1.2),
    Model("gpt-oss:20b", 13.8e9, 20.9),
    Model("mistral:7b", 4.4e9, 7.2),
    Model("deepseek-r1:7b", 4.7e9, 7.6),
    Model("qwen3:8b", 5.2e9, 8.2),
    Model("llama3.2:3b", 2.0e9, 3.2),
    Model("qwen2.5:0.5b", 0.4e9, 0.5),
    Model("gemma3:12b", 8.1e9, 12.2),
)
