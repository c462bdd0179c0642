"""Short ways to records, as finished generations leave them."""

import random
from typing import Any

import msgspec

from gateway.fleet.host import Host
from gateway.fleet.jobs import Job, Jobs
from gateway.fleet.progress import PartState
from gateway.fleet.snapshot import FleetSnapshot
from gateway.fleet.targets import Targets
from gateway.record import (
    Accounting,
    Attempt,
    AttemptOutcome,
    CancelSource,
    Costs,
    GenerationRecord,
    Outcome,
    Phase,
    Rejected,
    Route,
    RouteReason,
    Usage,
)
from gateway.telemetry.gauges import Configured, Kept, Live, Turned
from tests.builders import TEXT
from tests.fleet.builders import snapshot

ROUTE = Route(
    "gpu1",
    RouteReason.LOADED,
    (Costs("gpu1", 0.5, 0.0, 0.0, 0.5, 0.0, 0.0), Costs("gpu2", 2.5, 0.0, 2.0, 0.5, 0.0, 0.0)),
    (Rejected("gpu3", "circuit_open", "is ejected: refused"),),
)
GOOD = Attempt("gpu1", AttemptOutcome.OK, 0.5, 3.0, 200)
RECORD = GenerationRecord(
    received_at=1795354517.25,
    id="0192f3a4b5c6",
    dialect="ollama",
    endpoint="/api/generate",
    operation="text_completion",
    requested_model="SmolLM2:135M",
    model=TEXT,
    stream=True,
    session="talk",
    client="10.0.0.9",
    outcome=Outcome.OK,
    reason="",
    phase=Phase.DONE,
    cancelled_by=None,
    status=200,
    host="gpu1",
    cold=False,
    queue_seconds=0.25,
    ttft_seconds=1.5,
    duration_seconds=3.75,
    max_gap_seconds=0.125,
    cancel_seconds=None,
    usage=Usage(14, 25, Accounting.REPORTED, 0.0, 0.5, 2.5),
    chunks=26,
    bytes_in=100,
    bytes_out=2600,
    attempts=(GOOD,),
    route=ROUTE,
)
"""An ordinary stream: received, half a second later sent to gpu1, 25 tokens in three seconds."""


def live(fleet: FleetSnapshot | None = None, **changes: Any) -> Live:
    """A scrape's view of an idle gateway of some fleet, but for what is given."""
    usual: dict[str, Any] = {
        "fleet": fleet or snapshot(),
        "placement": (),
        "wall": 1_795_354_517.0,
        "queued": {},
        "queue_limit": 512,
        "oldest_seconds": 0.0,
        "in_flight": {},
        "jobs": {},
        "kept": Kept(0, 0, 0, 0),
        "turns": Turned(0, {"done": 0}),
        "task_failures": 0,
        "configured": Configured(True, 1_795_354_000.0),
        "build": ("0.1.0", "python", "3.11.7"),
    }
    return Live(**(usual | changes))


def record(**changes: Any) -> GenerationRecord:
    """The ordinary record but for what is given."""
    return msgspec.structs.replace(RECORD, **changes)


def cancelled(
    source: CancelSource = CancelSource.CLIENT, phase: Phase = Phase.STREAMING, **changes: Any
) -> GenerationRecord:
    """A generation that was stopped while it streamed."""
    outcome = Outcome.TIMEOUT if source is CancelSource.DEADLINE else Outcome.CANCELLED
    attempt = Attempt("gpu1", AttemptOutcome.CANCELLED, 0.5, 2.0, 200)
    usual = {"usage": Usage(0, 7), "cancel_seconds": 0.002, "attempts": (attempt,)}
    return record(outcome=outcome, cancelled_by=source, phase=phase, **(usual | changes))


def job(kind: str = "pull", model: str = "m", seconds: float = 2.0, **states: PartState) -> Job:
    """A job that has ended so on these hosts; each had got 10 bytes. Another host was left out."""
    now = [100.0]
    known = Jobs(lambda: now[0], lambda: 1_795_354_517.25, random.Random(1))
    hosts = tuple(Host(name, f"http://{name}") for name in states)
    with known.track(kind, model, Targets(hosts, {"gpu9": "draining"})) as made:
        for name, state in states.items():
            made.parts[name].completed = 10
            made.parts[name].end(state, "" if state is PartState.SUCCEEDED else "disk full")
        now[0] += seconds
    return made


def unserved(outcome: Outcome, status: int, **changes: Any) -> GenerationRecord:
    """A generation that reached no host."""
    usual = {"host": None, "attempts": (), "route": None, "usage": Usage(), "ttft_seconds": None, "phase": Phase.QUEUED}
    return record(outcome=outcome, status=status, **(usual | changes))
