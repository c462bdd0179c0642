"""Frozen facts about hosts: what is configured, what a poll saw, what is held."""

from collections.abc import Mapping
from typing import Any

import msgspec

RunnerOptions = tuple[tuple[str, Any], ...]


class Host(msgspec.Struct, frozen=True, gc=False):
    """One Ollama server as configured. ``slots``: requests it may serve at once."""

    name: str
    url: str
    slots: int = 1
    tags: tuple[str, ...] = ()
    vram_bytes: int = 0  # as configured; 0: not said


class AvailableModel(msgspec.Struct, frozen=True, gc=False):
    """A model on a host's disk. ``row`` is the host's own /api/tags row, untouched; ``size`` in bytes."""

    name: str
    digest: str
    size: int
    row: Mapping[str, Any]


class LoadedModel(msgspec.Struct, frozen=True, gc=False):
    """A model in a host's memory; sizes in bytes. ``row`` is the host's own /api/ps row (empty while only our answers prove it)."""

    name: str
    digest: str
    size: int
    vram: int
    context: int
    expires_at: str
    row: Mapping[str, Any]


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What one poll returned; None where it did not ask. ``latency_seconds`` is that of /api/version; ``began``: when /api/ps was asked, like
    ``at``; ``wall``: Unix seconds of ``at``."""

    at: float
    version: str
    latency_seconds: float
    loaded: tuple[LoadedModel, ...] | None = None
    available: tuple[AvailableModel, ...] | None = None
    began: float = 0.0
    wall: float = 0.0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """One slot held on a host, from choosing to closing. ``cold``: the model has to be loaded for it. ``until``: when it should be over.
    ``known``: the host's cache was thought to know the prompt's beginning."""

    number: int
    host: str
    digest: str | None
    cold: bool
    since: float
    until: float = 0.0
    known: bool = False
