"""The books that the truth test keeps: what /metrics must say, by what clients saw and hosts wrote down, and by nothing that Corral says.

A lane is two hosts, and models that no other host has. It does one thing after the other, so that everything its hosts write down meanwhile
belongs to that one thing; lanes run side by side.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from simulator.host import HostProfile, SimulatedHost
from simulator.ledger import Entry
from simulator.models import model_named, renamed
from simulator.names import ModelName
from tests.builders import PATHS, Call
from tests.stage import Sample

OPERATIONS = {
    "/api/generate": "text_completion",
    "/v1/completions": "text_completion",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    "/v1/embeddings": "embeddings",
}
"""All others are chats."""

PREAMBLE = {"/v1/messages": 2, "/v1/responses": 4}
"""Events of a stream before its first token."""

ENDED = {
    "completed": "ok",
    "disconnected": "cancelled",
    "fault:reset_before_headers": "reset",
    "fault:close_before_headers": "reset",
    "fault:garbage": "protocol_error",
    "fault:garbage_mid_stream": "protocol_error",
    "error:500": "http_5xx",
    "error:503": "http_5xx",
    "error:404": "http_4xx",
}
"""How an inference ended, as the host says it → what Corral must call the attempt. What broke off is ``reset``, or after its first
chunk ``midstream_error``, as is a stream that ends in what is no end."""
OWN = ("fault:error_mid_stream", "fault:end_without_done")
"""Failures that are whole answers on the wire: Corral adds no words of its own."""


def attempt_of(entry: Entry, *, stream: bool) -> str:
    """What Corral must call an attempt."""
    how = entry.how or ""
    if how in ENDED:
        return ENDED[how]
    begun = stream and entry.output_tokens > 0
    if how in OWN:
        return "midstream_error" if begun else "http_5xx" if "error" in how else "reset"
    assert how == "killed" or how.endswith(("reset_mid_stream", "close_mid_stream")), how
    return "midstream_error" if begun else "reset"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``told``: whether the host tells the tokens of a whole answer; ``streams``: whether it comes in pieces."""

    call: Call
    model: str
    streams: bool
    told: bool

    @property
    def operation(self) -> str:
        """As metrics call it."""
        return OPERATIONS.get(self.call.path, "chat")

    def upto(self, tokens: int, body: bytes) -> bytes:
        """A stream's bytes as far as so many tokens; Corral's last words come after them."""
        end = b"\n" if self.call.path.startswith("/api") else b"\n\n"
        parts = body.split(end)[: tokens + PREAMBLE.get(self.call.path, 0)]
        return b"".join(part + end for part in parts)


@dataclass(slots=True)
class Seen:
    """What a client saw. ``code``: of Corral's own errors; ``how``: whole, failed, or who ended it; ``phase``: where."""

    how: str
    status: int = 0
    body: bytes = b""
    code: str = ""
    phase: str = ""

    @property
    def stopped(self) -> bool:
        """Whether somebody did."""
        return self.how in ("client_disconnect", "api", "shutdown")

    @property
    def outcome(self) -> str:
        """As metrics call it."""
        if self.stopped:
            return "gateway_error" if self.how == "shutdown" else "cancelled"
        if self.status == 200:
            return "ok" if self.how == "whole" else "upstream_error"
        return "client_error" if self.status == 400 or self.code == "model_not_found" else "upstream_error"


@dataclass(slots=True)
class Books:
    """Metric → labels → value."""

    counts: dict[str, Counter[tuple[str, ...]]] = field(default_factory=dict)
    generations: int = 0

    def add(self, name: str, *labels: str, count: int = 1) -> None:
        """Count something, under the labels in the order of the catalogue."""
        self.counts.setdefault(f"corral_{name}", Counter())[labels] += count

    def generation(self, asked: Asked, seen: Seen, tried: list[tuple[str, str]], last: Entry | None) -> None:
        """One that left a record. ``tried``: (host, outcome) of each attempt, in order; ``last``: what a host wrote down of the last one."""
        self.generations += 1
        operation, model, outcome, path = asked.operation, asked.model, seen.outcome, asked.call.path
        host = tried[-1][0] if tried else ""
        self.add("requests_total", operation, model, outcome)
        self.add("request_duration_seconds_count", operation, model, outcome)
        self.add("gateway_overhead_seconds_count", operation)
        self.add("http_responses_total", path, "499" if seen.how == "client_disconnect" else str(seen.status))
        waited = "admitted" if tried else "cancelled" if outcome == "cancelled" else "refused"
        self.add("queue_wait_seconds_count", model, waited)
        for where, how in tried:
            self.add("upstream_attempts_total", where, how)
            self.add("upstream_attempt_duration_seconds_count", where, how)
        for where, how in tried[:-1]:
            self.add("retries_total", where, how)
        if tried:
            self.add("routing_decisions_total", host)
        if outcome == "upstream_error" and tried and seen.status >= 400:
            self.add("retries_exhausted_total", model)
        if seen.stopped:
            self.add("cancellations_total", seen.how, seen.phase)
            self.add("cancel_propagation_seconds_count", count=bool(tried))
        self._tokens(asked, seen, tried, last if tried and tried[-1][1] != "connect_error" else None)

    def _tokens(self, asked: Asked, seen: Seen, tried: list[tuple[str, str]], last: Entry | None) -> None:
        operation, model, host = asked.operation, asked.model, tried[-1][0] if tried else ""
        whole = last is not None and seen.outcome == "ok"
        begun = last is not None and asked.streams and seen.phase in ("", "streaming") and last.output_tokens > 0
        output = 0
        if last is not None and whole and asked.told:
            output = last.output_tokens
            self.add("tokens_total", model, host, "input", "reported", count=last.prompt_tokens)
            self.add("tokens_total", model, host, "output", "reported", count=output)
            for kind, count in (("input", last.prompt_tokens), ("output", output)):
                self.add("request_tokens_count", model, kind, count=last.prompt_tokens + output > 0)
                self.add("request_tokens_sum", model, kind, count=count)
        elif last is not None and begun and seen.status == 200:
            output = last.output_tokens
            self.add("tokens_total", model, host, "output", "counted", count=output)
        if begun and seen.status == 200:
            self.add("time_to_first_token_seconds_count", model, host)
            self.add("max_chunk_gap_seconds_count", model, host)
            self.add("time_per_output_token_seconds_count", model, host, count=output > 1)
        if output and not whole:
            reason = "cancelled" if seen.stopped else "failed"
            self.add("wasted_tokens_total", model, host, reason, count=output)
        self.add("body_bytes_total", operation, "in", count=len(asked.call.body))
        passed = seen.body
        if begun and tried[-1][1] != "ok" and last is not None and last.how not in OWN:
            passed = asked.upto(last.output_tokens, seen.body)
        self.add(
            "body_bytes_total",
            operation,
            "out",
            count=0 if seen.code or (not begun and not seen.status) else len(passed),
        )

    def check(self, samples: list[Sample]) -> None:
        """Nothing in the books is otherwise at /metrics, and nothing of those metrics is there that is not in the books."""
        told: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in self.counts}
        for sample in samples:
            if sample.name in told and sample.labels.get("route", PATHS[0]) in PATHS:
                labels = tuple(
                    value for label, value in sample.labels.items() if label not in FREE.get(sample.name, ())
                )
                told[sample.name][labels] += int(sample.value)
        for name, counts in self.counts.items():
            assert told[name] == +counts, (name, told[name] - counts, counts - told[name])


FREE = {
    "corral_routing_decisions_total": ("reason",),
    "corral_model_loads_total": ("model", "trigger"),
    "corral_model_unloads_total": ("reason",),
    "corral_host_poll_errors_total": (),
}
"""Labels that hosts and clients cannot know: their sum is held against what they do."""


class Lane:
    """Two hosts that have a model for text and one for embeddings, and room for one of them in memory."""

    def __init__(self, number: int, seed: int) -> None:
        self.rng = random.Random(f"{seed}/{number}")
        self.text, self.embedding = f"lane{number}:135m", f"embed{number}:latest"
        name = ModelName.parse(self.embedding)
        assert name is not None
        models: tuple[Any, ...] = (self.text, renamed(model_named("all-minilm:latest"), name, 0))
        speeds = {"tokens_per_second": 1e6, "prefill_tokens_per_second": 1e7, "load_bytes_per_second": 1e13}
        profile = HostProfile(models=models, max_loaded=1, **speeds)  # type: ignore[arg-type]
        self.hosts = [SimulatedHost(f"lane{number}{one}", profile, seed=seed) for one in "ab"]
        self.lost = Counter[str]()  # models in memory of hosts that were killed
        self.steps = 0

    def marks(self) -> dict[str, int]:
        """How much each host has written down so far."""
        return {host.name: len(host.ledger.entries) for host in self.hosts}

    def since(self, marks: dict[str, int]) -> list[tuple[str, Entry]]:
        """What the hosts have written down since, in order."""
        new = [(host.name, entry) for host in self.hosts for entry in list(host.ledger.entries)[marks[host.name] :]]
        return sorted(new, key=lambda one: one[1].started)

    def kept(self, host: SimulatedHost) -> int:
        """Models in the memory of a host."""
        return host.ledger.loads - host.ledger.unloads - self.lost[host.name]
