"""What there is to choose among: models with what is known of them, on the hosts that may take the request. Pure: rows of the API in, values out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can chat. ``loaded``: the hosts that have it in memory now, and with how much context (tokens; 0: they do not say)."""

    name: str
    parameters: str
    quantization: str
    size_bytes: int
    capabilities: tuple[str, ...]
    loaded: dict[str, int]

    def lacks(self, capability: str) -> bool:
        """Whether it is known that it cannot do this."""
        return bool(self.capabilities) and capability not in self.capabilities

    def reloading(self, num_ctx: int | None) -> dict[str, int]:
        """The hosts that would have to load it again for another context, with the one that it has there; empty where one has it just so."""
        if not num_ctx or num_ctx in self.loaded.values():
            return {}
        return {host: context for host, context in self.loaded.items() if context}


def models(hosts: Rows) -> dict[str, Model]:
    """By name: those in memory first. What cannot chat is left out, where its host says so."""
    loaded: dict[str, dict[str, int]] = {}
    for host in hosts:
        for row in host["models_loaded"]:
            loaded.setdefault(row["name"], {})[host["name"]] = row.get("context_length") or 0
    known = {row["name"]: row for host in hosts for row in host["models_available"]}
    found = [_model(row, loaded.get(name, {})) for name, row in known.items()]
    able = [model for model in found if not model.lacks("completion")]
    return {model.name: model for model in sorted(able, key=lambda model: (not model.loaded, model.name))}


def _model(row: dict[str, Any], loaded: dict[str, int]) -> Model:
    details = row.get("details") or {}
    return Model(
        name=row["name"],
        parameters=str(details.get("parameter_size") or ""),
        quantization=str(details.get("quantization_level") or ""),
        size_bytes=row.get("size") or 0,
        capabilities=tuple(map(str, row.get("capabilities") or ())),
        loaded=loaded,
    )
