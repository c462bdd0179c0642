"""Short ways to the values that tests need: configurations, simulated hosts, requests."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Config, HostConfig, LogConfig, PollConfig
from simulator.host import HostProfile, SimulatedHost

TEXT = "smollm2:135m"
OTHER = "llama3.2:1b"
EMBEDDING = "all-minilm:latest"
AUDIO = "gemma3n:e4b"
PROMPT = "Why is the sky blue?"
BOUNDARY = "a-boundary"

NATIVE = ("/api/generate", "/api/chat", "/api/embed", "/api/embeddings")
OPENAI = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/audio/transcriptions",
)
ANTHROPIC = ("/v1/messages",)
PATHS = NATIVE + OPENAI + ANTHROPIC
STREAMING = (
    "/api/generate",
    "/api/chat",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
ONE_EACH = ("/api/chat", "/v1/chat/completions", "/v1/messages")
"""A path for each dialect, where one stands for all."""


def config(
    hosts: Iterable[tuple[str, str]],
    slots: int | Mapping[str, int] = 1,
    *,
    account_host: str = "",
    links: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Any,
) -> Config:
    """A configuration on a free port; hosts are (name, url), other sections mappings, or values as they are. Polls come once and then not for long.

    ``links``: more of a host, by its name."""
    links = links or {}
    named = tuple(
        HostConfig(name, url, slots if isinstance(slots, int) else slots.get(name, 1), **links.get(name, {}))
        for name, url in hosts
    )
    kinds = {entry.name: entry.default_factory for entry in dataclasses.fields(Config)}
    quiet = {
        "poll": PollConfig(interval_seconds=60.0, inventory_seconds=60.0),
        "log": LogConfig(format="json"),
    }
    given = {
        name: dataclasses.replace(quiet[name], **values) if name in quiet else kinds[name](**values)  # type: ignore[operator]
        for name, values in sections.items()
        if isinstance(values, Mapping)
    }
    lists = {name: values for name, values in sections.items() if name not in given}
    listening = {"listen": "127.0.0.1:0"}
    return Config(hosts=named, account_host=account_host, **(listening | quiet | given | lists))  # type: ignore[arg-type]


def simulated(name: str = "gpu1", *models: str, seed: int = 1, **changes: Any) -> SimulatedHost:
    """A host with ``models`` that loads and prefills at once and says 5000 tokens per second, but for ``changes``."""
    speeds = {"tokens_per_second": 5000.0, "prefill_tokens_per_second": 1e7, "load_bytes_per_second": 1e13}
    profile = HostProfile(**({"models": models or (TEXT, OTHER, EMBEDDING, AUDIO)} | speeds | changes))
    return SimulatedHost(name, profile, seed=seed)


@dataclass(frozen=True, slots=True)
class Call:
    """One POST."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def call(
    path: str,
    model: str = "",
    *,
    stream: bool | None = None,
    tokens: int = 5,
    prompt: str = PROMPT,
    headers: Mapping[str, str] | None = None,
    **rest: Any,
) -> Call:
    """A request that ``path`` takes; ``rest`` goes into the body. ``stream`` None leaves it out."""
    given = dict(headers or {})
    if path == "/v1/audio/transcriptions":
        form = _form({"model": model or AUDIO, "file": b"RIFF....WAVE", **rest})
        return Call(path, form, given | {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    messages = {"messages": [{"role": "user", "content": prompt}]}
    limited = {"options": {"num_predict": tokens} | rest.pop("options", {})}
    fields: dict[str, Any] = {
        "/api/generate": {"prompt": prompt, **limited},
        "/api/chat": {**messages, **limited},
        "/api/embed": {"input": [prompt, "grass"]},
        "/api/embeddings": {"prompt": prompt},
        "/v1/chat/completions": {**messages, "max_tokens": tokens},
        "/v1/completions": {"prompt": prompt, "max_tokens": tokens},
        "/v1/embeddings": {"input": prompt},
        "/v1/responses": {"input": prompt, "max_output_tokens": tokens},
        "/v1/messages": {**messages, "max_tokens": tokens},
    }[path]
    usual = EMBEDDING if "embed" in path else TEXT
    streams = {} if stream is None else {"stream": stream}
    body = {"model": model or usual, **fields, **streams, **rest}
    return Call(path, json.dumps(body).encode(), {"Content-Type": "application/json"} | given)


def _form(fields: Mapping[str, str | bytes]) -> bytes:
    parts = []
    for name, value in fields.items():
        file = b'; filename="said.wav"\r\nContent-Type: audio/wav' if isinstance(value, bytes) else b""
        data = value if isinstance(value, bytes) else value.encode()
        head = b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n' % (BOUNDARY.encode(), name.encode(), file)
        parts.append(head + data + b"\r\n")
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()
