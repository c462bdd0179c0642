"""What a scrape reads from the live state itself: nothing here is counted up and down, so nothing can leak.

Each reading is declared where it is read: name, meaning, labels. A model that is unloaded or a host that is removed is gone from the next
scrape.
"""

from collections import Counter as Counts
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from gateway.config import PlacementConfig
from gateway.fleet.health import State
from gateway.fleet.hygiene import FindingKind, findings
from gateway.fleet.keeps import Keep, KeepState
from gateway.fleet.residence import expiry
from gateway.fleet.snapshot import FleetSnapshot
from gateway.telemetry.families import Reading, Rows

VERSION_LENGTH, NAME_LENGTH = 64, 256  # of what a host calls its version, and a model
LOADED_LIMIT = 100  # models that one host has in memory


class Kept(NamedTuple):
    """Detached generations that run, those that ended and can be read, the bytes that are held of their answers, and who reads them."""

    running: int
    ended: int
    size: int
    readers: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The database and the records that wait for it. ``written_at``: Unix seconds of the last batch, ``oldest_at`` of the oldest row."""

    up: bool
    queued: int
    queue_limit: int
    written_at: float | None
    oldest_at: float | None
    free_bytes: int | None


class Configured(NamedTuple):
    """Whether the last load of the configuration worked, when one did last, in Unix seconds; and how often it was read again, well and in vain."""

    successful: bool
    at: float
    reloads: int = 0
    failures: int = 0


class Turned(NamedTuple):
    """Answers in sessions that are being generated or kept, and how many have ended how."""

    in_flight: int
    ended: Mapping[str, int]


class Shared(NamedTuple):
    """The gateways on one database: how many (this one among them), whether they can be told things, how often the bus was connected."""

    gateways: int
    bus_up: bool
    bus_connections: int


@dataclass(frozen=True, slots=True)
class Live:
    """The live state at one moment. ``wall``: Unix seconds of ``fleet.taken_at``; ``queued``: model → waiting; ``in_flight``: (host, model) → running;
    ``jobs``: kind → running; ``build``: version, how it was built, Python's version."""

    fleet: FleetSnapshot
    placement: Sequence[PlacementConfig]
    wall: float
    queued: Mapping[str, int]
    queue_limit: int
    oldest_seconds: float
    in_flight: Mapping[tuple[str, str], int]
    jobs: Mapping[str, int]
    kept: Kept
    turns: Turned
    task_failures: int
    configured: Configured
    build: tuple[str, str, str]
    store: Stored | None = None
    shared: Shared | None = None
    keeps: Mapping[str, Sequence[Keep]] = field(default_factory=dict)  # by host, what is to be in its memory


def read(live: Live) -> Iterator[Reading]:
    """All readings of this moment, in the order in which they are shown."""
    yield from _work(live)
    yield from _hosts(live)
    yield from _models(live.fleet)
    yield from _keeps(live.keeps)
    yield from _store(live.store)
    yield from _shared(live)
    yield from _self(live)


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Reading:
    return Reading("gauge", name, text, labels, rows)


def _one(name: str, text: str, value: float | None) -> Reading:
    """A gauge without labels; None: there is nothing to tell."""
    return _gauge(name, text, (), [] if value is None else [((), value)])


def _work(live: Live) -> Iterator[Reading]:
    in_flight = "Requests now being served by a host."
    yield _gauge("corral_requests_in_flight", in_flight, ("host", "model"), live.in_flight.items())
    queued = (((model,), count) for model, count in live.queued.items())
    yield _gauge("corral_queue_depth", "Requests waiting for a slot.", ("model",), queued)
    yield _one("corral_queue_limit", "Most requests that may wait.", live.queue_limit)
    yield _one("corral_queue_oldest_seconds", "Age of the oldest waiting request.", live.oldest_seconds)
    jobs = (((kind,), count) for kind, count in live.jobs.items())
    yield _gauge("corral_jobs_in_flight", "Jobs that change models now.", ("kind",), jobs)
    kept = live.kept
    states = ((("running",), kept.running), (("ended",), kept.ended))
    detached = "Detached generations whose answers can be read."
    yield _gauge("corral_detached_generations", detached, ("state",), states)
    yield _one("corral_detached_held_bytes", "Bytes held of their answers.", kept.size)
    yield _one("corral_detached_readers", "Readers of their answers now.", kept.readers)
    turns = live.turns
    yield _one("corral_turns_in_flight", "Answers in sessions that are being generated or kept.", turns.in_flight)
    ended = (((how,), count) for how, count in turns.ended.items())
    text = "Answers in sessions that were kept, by how they ended; unkept: the database was away for too long."
    yield Reading("counter", "corral_turns", text, ("outcome",), ended)


def _hosts(live: Live) -> Iterator[Reading]:
    fleet, host = live.fleet, ("host",)
    hosts = fleet.hosts
    polled = [view for view in hosts if view.seen_at is not None]
    up = (((h.name,), h.seen_at is not None and h.health.state is not State.EJECTED) for h in hosts)
    yield _gauge("corral_host_up", "1 while the host answers and is not ejected.", host, up)
    states = (((h.name, state), h.health.state is state) for h in hosts for state in State)
    yield _gauge("corral_host_state", "1 for the state in force.", ("host", "state"), states)
    limits = (((h.name,), h.slots) for h in hosts)
    yield _gauge("corral_host_concurrency_limit", "Slots the gateway allows.", host, limits)
    yield _gauge("corral_host_leases", "Slots held now.", host, (((h.name,), h.leases) for h in hosts))
    elsewhere = (((h.name,), h.elsewhere) for h in hosts)
    yield _gauge("corral_host_leases_elsewhere", "Slots that other gateways hold, as last told.", host, elsewhere)
    vram = (((h.name,), sum(m.vram for m in h.loaded.values())) for h in polled)
    yield _gauge("corral_host_vram_used_bytes", "Sum of size_vram over /api/ps.", host, vram)
    given = (((h.name,), h.host.vram_bytes) for h in hosts if h.host.vram_bytes)
    total = "VRAM that the configuration says the host has; nothing where it does not say."
    yield _gauge("corral_host_vram_total_bytes", total, host, given)
    seen = (((h.name,), live.wall - fleet.taken_at + (h.seen_at or 0.0)) for h in polled)
    last = "corral_host_last_success_timestamp_seconds"
    yield _gauge(last, "Unix time of the last good poll.", host, seen)
    draining = (((h.name,), h.draining) for h in hosts)
    yield _gauge("corral_host_draining", "1 while the host takes no new requests.", host, draining)
    amiss = Counts(finding.kind for finding in findings(fleet, live.placement))
    kinds = (((kind,), amiss[kind]) for kind in FindingKind)
    yield _gauge("corral_fleet_findings", "What is amiss with the fleet as a whole.", ("kind",), kinds)
    info = (((h.name, h.version[:VERSION_LENGTH]), 1) for h in polled)
    yield _gauge("corral_host_info", "Constant 1; host facts as labels.", ("host", "ollama_version"), info)


def _models(fleet: FleetSnapshot) -> Iterator[Reading]:
    labels = ("host", "model")
    held = {
        (host.name, model.name[:NAME_LENGTH]): model
        for host in fleet.hosts
        for model in islice(host.loaded.values(), LOADED_LIMIT)
    }
    told = [(key, model) for key, model in held.items() if model.row]
    yield _gauge(
        "corral_model_loaded", "1 while the model is in the host's memory.", labels, ((key, 1) for key in held)
    )
    vram = ((key, model.vram) for key, model in told)
    yield _gauge("corral_model_vram_bytes", "size_vram of a loaded model.", labels, vram)
    size = "size of a loaded model, VRAM and RAM: more than its size_vram is on the CPU."
    yield _gauge("corral_model_size_bytes", size, labels, ((key, model.size) for key, model in told))
    context = ((key, model.context) for key, model in told)
    yield _gauge("corral_model_context_length", "context_length of a loaded model, in tokens.", labels, context)
    expiries = ((key, expiry(model.expires_at)) for key, model in told)
    expires = ((key, at) for key, at in expiries if at is not None)
    yield _gauge("corral_model_expires_timestamp_seconds", "expires_at of a loaded model, Unix time.", labels, expires)


def _keeps(keeps: Mapping[str, Sequence[Keep]]) -> Iterator[Reading]:
    there = (KeepState.LOADED, KeepState.RENEWED)
    rows = {
        (host, keep.model[:NAME_LENGTH], keep.kind): keep.state in there
        for host, some in keeps.items()
        for keep in some
    }
    text = "Whether a model is in memory that is to be there: pinned, or kept warm."
    yield _gauge("corral_model_kept", text, ("host", "model", "kind"), rows.items())


def _store(store: Stored | None) -> Iterator[Reading]:
    given = store or Stored(False, 0, 0, None, None, None)
    rows: list[tuple[str, str, float | None]] = [
        ("up", "1 while the database takes what is to be kept.", given.up),
        ("queue_depth", "Records waiting to be written.", given.queued),
        ("queue_limit", "Most records that may wait.", given.queue_limit),
        ("last_flush_timestamp_seconds", "Unix time of the last batch written.", given.written_at),
        ("oldest_timestamp_seconds", "Unix time of the oldest request that is kept.", given.oldest_at),
        ("free_bytes", "Free on the disk of an SQLite file.", given.free_bytes),
    ]
    for name, text, value in rows:
        yield _one(f"corral_db_{name}", text, value if store else None)


def _shared(live: Live) -> Iterator[Reading]:
    shared = live.shared
    yield _one("corral_replicas", "Gateways on this database, this one among them.", shared and shared.gateways)
    yield _one("corral_replica_bus_up", "1 while the others can be told things at once.", shared and shared.bus_up)
    connections = [((), float(shared.bus_connections))] if shared else []
    text = "Times the bus between gateways was connected."
    yield Reading("counter", "corral_replica_bus_connections", text, (), connections)


def _self(live: Live) -> Iterator[Reading]:
    successful, at, reloads, failures = live.configured
    yield _one("corral_config_last_reload_successful", "1 if the last load of the configuration worked.", successful)
    last = "corral_config_last_reload_success_timestamp_seconds"
    yield _one(last, "Unix time of the last good load of the configuration.", at)
    read_again = ((("ok",), reloads), (("failed",), failures))
    text = "Times the configuration was read again."
    yield Reading("counter", "corral_config_reloads", text, ("outcome",), read_again)
    text = "Background tasks that failed; the log says of what."
    yield Reading("counter", "corral_task_failures", text, (), [((), live.task_failures)])
    labels = ("version", "build", "python")
    yield _gauge("corral_build_info", "Constant 1; build facts as labels.", labels, [(live.build, 1)])
