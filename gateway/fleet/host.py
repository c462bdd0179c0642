"""Frozen facts about hosts: what is configured, what a poll saw, what is held."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

RunnerOptions = tuple[tuple[str, Any], ...]


class ReloadCause(StrEnum):
    """Why a model was loaded anew (a metric label): the runner option that differed, or one of the last three."""

    NUM_CTX = "num_ctx"
    NUM_BATCH = "num_batch"
    NUM_GPU = "num_gpu"
    MAIN_GPU = "main_gpu"
    USE_MMAP = "use_mmap"
    NUM_THREAD = "num_thread"
    DRAFT_NUM_PREDICT = "draft_num_predict"
    SHIFT = "shift"
    SEVERAL = "several"  # more than one of these
    ELSEWHERE = "elsewhere"  # by a request that did not go through this gateway
    UNKNOWN = "unknown"  # an adapter, a runner that did not answer Ollama, options that somebody else had sent


class Link(msgspec.Struct, frozen=True, gc=False):
    """How a host is reached, beside its URL. ``ca``, ``cert``, ``key``: files in PEM form; not ``verify``: whoever answers is taken for the host;
    ``server_name``: the name in its certificate, where its URL has another; ``headers``: sent with each request, secrets among them."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True
    server_name: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.headers)
        return f"Link(ca={self.ca!r}, cert={self.cert!r}, verify={self.verify}, headers of {names or 'none'})"


class Host(msgspec.Struct, frozen=True, gc=False):
    """One Ollama server as configured. ``slots``: requests it may serve at once; 0: that is found out (parallel.py)."""

    name: str
    url: str
    slots: int = 1
    tags: tuple[str, ...] = ()
    vram_bytes: int = 0  # as configured; 0: not said
    link: Link = Link()


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
    ``known``: the host's cache was thought to know the prompt's beginning. ``reload``: why it is loaded anew, if it is there already. ``joins``: the load
    was under way, for somebody else, when it was taken."""

    number: int
    host: str
    digest: str | None
    cold: bool
    since: float
    until: float = 0.0
    known: bool = False
    reload: ReloadCause | None = None
    joins: bool = False
