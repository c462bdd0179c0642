"""A simulated host's disk: the models that are available there, and the blobs."""

import time
from collections.abc import Iterable
from dataclasses import replace

from simulator.models import SimulatedModel, model_named, renamed
from simulator.names import ModelName


class Store:
    """Models by name, found whatever the case of the name is. `blobs` maps digests to bytes."""

    def __init__(self, models: Iterable[str | SimulatedModel]) -> None:
        self.blobs: dict[str, int] = {}
        self._models: dict[tuple[str, str, str, str], SimulatedModel] = {}
        self._written_ns = 0
        for model in models:
            self.add(model if isinstance(model, SimulatedModel) else model_named(model))

    def add(self, model: SimulatedModel) -> SimulatedModel:
        """Write a model, with its layers, in place of one of the same name; it becomes the newest."""
        self._written_ns = max(time.time_ns(), self._written_ns + 1)
        model = replace(model, modified_ns=self._written_ns)
        self._models[model.name.key] = model
        self.blobs |= {layer.digest: layer.size for layer in model.manifest}
        return model

    def find(self, text: str) -> SimulatedModel | None:
        """The model that `text` names, if it is here."""
        name = ModelName.parse(text)
        return None if name is None else self._models.get(name.key)

    def copy(self, model: SimulatedModel, name: ModelName) -> None:
        """Write the same model under another name."""
        self.add(renamed(model, name, 0))

    def delete(self, model: SimulatedModel) -> None:
        """Remove a model and the blobs that no other one uses."""
        del self._models[model.name.key]
        used = {layer.digest for other in self._models.values() for layer in other.manifest}
        for layer in model.manifest:
            if layer.digest not in used:
                self.blobs.pop(layer.digest, None)

    def newest_first(self) -> list[SimulatedModel]:
        """All models as tags lists them."""
        return sorted(self._models.values(), key=lambda model: -model.modified_ns)
