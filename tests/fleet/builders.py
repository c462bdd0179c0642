"""Short ways to hosts, models, views and requests, as routing sees them."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.names import canonical
from gateway.dialects.request import InferenceRequest, Kind
from gateway.fleet.health import Health, State
from gateway.fleet.host import AvailableModel, Host, LoadedModel, Observation
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.record import Usage
from tests.builders import OTHER, TEXT

HEALTHY = Health(State.HEALTHY, "")
SIZE = 1_000_000_000
WORKED_OUT = {"digest_of", "failures", "is_full", "memo", "most", "name", "slots", "state"}
"""What a view makes of what it is given."""


def written(path: Path, value: Any) -> str:
    """A file with this, as JSON (which is YAML too)."""
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def digest_of(model: str) -> str:
    """The digest that a model has here, whatever the host."""
    return hashlib.sha256(model.encode()).hexdigest()


def host(name: str = "gpu1", slots: int = 1, vram_bytes: int = 0) -> Host:
    """A configured host."""
    return Host(name, f"http://{name}.test:11434", slots, vram_bytes=vram_bytes)


def available(name: str = TEXT, digest: str = "", modified_at: str = "", size: int = SIZE) -> AvailableModel:
    """A model on disk."""
    digest = digest or digest_of(name)
    row = {"name": name, "model": name, "modified_at": modified_at, "size": size, "digest": digest}
    return AvailableModel(name, digest, size, row)


def loaded(name: str = TEXT, digest: str = "", expires_at: str = "", context: int = 4096) -> LoadedModel:
    """A model in memory."""
    digest = digest or digest_of(name)
    row = {"name": name, "digest": digest, "expires_at": expires_at, "context_length": context, "size_vram": SIZE}
    return LoadedModel(name, digest, SIZE, SIZE, context, expires_at, row)


def observation(
    at: float = 0.0,
    has: Iterable[str] | None = (TEXT, OTHER),
    holds: Iterable[str] | None = (),
    version: str = "0.33.0",
) -> Observation:
    """A poll that saw these models on disk and these in memory."""
    return Observation(
        at,
        version,
        0.001,
        None if holds is None else tuple(map(loaded, holds)),
        None if has is None else tuple(map(available, has)),
        at,
    )


def view(
    name: str = "gpu1",
    *,
    slots: int = 1,
    leases: int = 0,
    has: Iterable[str | AvailableModel] | None = (TEXT, OTHER),
    holds: Iterable[str | LoadedModel] = (),
    health: Health = HEALTHY,
    **changes: Any,
) -> HostView:
    """A healthy, idle host that has two models and holds none in memory, but for what is given."""
    disk = None if has is None else [available(model) if isinstance(model, str) else model for model in has]
    memory = [loaded(model) if isinstance(model, str) else model for model in holds]
    usual: dict[str, Any] = {
        "loading": {},
        "runners": {},
        "leased_at": float("-inf"),
        "estimates": {},
        "service_seconds": None,
        "version": "0.33.0",
        "latency_seconds": 0.001,
        "seen_at": 0.0,
    }
    return HostView(
        host=host(name, slots),
        health=health,
        available=None if disk is None else {canonical(model.name): model for model in disk},
        loaded={model.digest: model for model in memory},
        leases=leases,
        **(usual | changes),
    )


def changed(view: HostView, **changes: Any) -> HostView:
    """Another view, that differs in this."""
    same = {name: getattr(view, name) for name in dir(view) if name[0] != "_" and name not in WORKED_OUT}
    return HostView(**(same | changes))


def told(load_seconds: float = 0.0, decode_rate: float = 0.0, prefill_rate: float = 0.0) -> Usage:
    """What a whole answer says, of a prompt of 1000 tokens, and of 10 tokens of output where a rate is given."""
    return Usage(
        input_tokens=1000,
        output_tokens=10 if decode_rate else 0,
        load_seconds=load_seconds,
        prefill_seconds=1000 / prefill_rate if prefill_rate else 0.0,
        decode_seconds=10 / decode_rate if decode_rate else 0.0,
    )


def snapshot(*views: HostView, at: float = 0.0, **learned: Any) -> FleetSnapshot:
    """The fleet at one moment. ``learned``: demand, lengths, sizes."""
    return FleetSnapshot(at, views, **learned)


def request(
    model: str = TEXT, *, path: str = "/api/generate", kind: Kind = Kind.INFER, id_: str = "g1", **changes: Any
) -> InferenceRequest:
    """A request without a prompt, but for what is given."""
    usual = {"runner_options": (), "prompt_tokens": 0, "prefix": (), "body": b"{}", "stream": True}
    return InferenceRequest(
        id=id_,
        endpoint=ENDPOINTS[path],
        kind=kind,
        requested_model=model,
        model=canonical(model),
        **(usual | changes),  # type: ignore[arg-type]
    )
