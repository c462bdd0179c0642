"""What a simulated host has seen and done: counters, gauges, one entry per inference, the last requests as received."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from simulator import clock

Phase = Literal["queued", "loading", "prefill", "generating", "done"]
"""Where an inference is; `done` once its answer is complete."""

POLLS = ("/", "/api/ps", "/api/tags", "/api/version", "/v1/models")
_ENTRIES = 10_000
_RECEIVED = 32


@dataclass(slots=True, eq=False)
class Entry:
    """One inference. Times are monotonic seconds; `ended` and `how` are None while it runs.

    `how`: completed, disconnected, killed, stopped, fault:<name> or error:<status>; `phase` stays where it ended.
    """

    request_id: str | None
    endpoint: str
    started: float
    model: str = ""
    phase: Phase = "queued"
    ended: float | None = None
    how: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """The head of one request, as it came in."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]


class Ledger:
    """Everything is written by the host's own event loop; everyone may read at any time."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=_ENTRIES)
        self.received: deque[Received] = deque(maxlen=_RECEIVED)
        self.last_body = b""
        self.requests: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.disconnected: Counter[str] = Counter()
        self.abandoned: Counter[str] = Counter()  # managing requests whose client left, by path
        self.faults: Counter[str] = Counter()
        self.reloads: Counter[str] = Counter()
        self.loads = 0
        self.unloads = 0
        self.tokens_generated = 0
        self.body_bytes = 0
        self.connections_opened = 0
        self.connections_open = 0
        self.last_disconnect_noticed: float | None = None
        self._phases: Counter[Phase] = Counter()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def in_flight(self) -> int:
        """Inferences that have not ended."""
        return self._phases.total()

    @property
    def queued(self) -> int:
        """Inferences that wait for a load before theirs, or for a slot."""
        return self._phases["queued"]

    @property
    def loading(self) -> int:
        """Inferences whose model is being loaded for them."""
        return self._phases["loading"]

    @property
    def prefill(self) -> int:
        """Inferences that hold a slot and have no token yet."""
        return self._phases["prefill"]

    @property
    def generating(self) -> int:
        """Inferences that hold a slot and have their first token."""
        return self._phases["generating"]

    @property
    def completed(self) -> int:
        """Inferences answered in full."""
        return self.outcomes["completed"]

    @property
    def polls(self) -> dict[str, int]:
        """Requests to the endpoints that pollers read."""
        return {path: self.requests[path] for path in POLLS if self.requests[path]}

    def request(self, endpoint: str, received: Received) -> None:
        """A request's head has arrived."""
        self.requests[endpoint] += 1
        self.received.append(received)
        self.changed()

    def body(self, body: bytes) -> None:
        """A request's body has arrived."""
        self.last_body = body
        self.body_bytes += len(body)

    def begin(self, endpoint: str, request_id: str | None) -> Entry:
        """An inference has begun: it is in flight until `end`."""
        entry = Entry(request_id, endpoint, clock.now())
        self.entries.append(entry)
        self._phases["queued"] += 1
        self.changed()
        return entry

    def move(self, entry: Entry, phase: Phase) -> None:
        """An inference has gone on to another phase."""
        if entry.ended is None and entry.phase != phase:
            self._phases[entry.phase] -= 1
            self._phases[phase] += 1
            entry.phase = phase
            self.changed()

    def token(self, entry: Entry) -> None:
        """One token has been generated, and sent if the answer streams."""
        entry.output_tokens += 1
        self.tokens_generated += 1
        if self._waiters:
            self.changed()

    def end(self, entry: Entry, how: str) -> None:
        """An inference has ended; only the first end counts."""
        if entry.ended is not None:
            return
        self._phases[entry.phase] -= 1
        entry.ended = clock.now()
        entry.how = how
        self.outcomes[how] += 1
        if how == "completed":
            entry.phase = "done"
        elif how == "disconnected":
            self.disconnected[entry.phase] += 1
            self.last_disconnect_noticed = entry.ended
        self.changed()

    def left(self, endpoint: str) -> None:
        """The client of a managing request has gone before its end."""
        self.abandoned[endpoint] += 1
        self.changed()

    def connection(self, change: Literal[1, -1]) -> None:
        """A connection has been opened or closed."""
        self.connections_open += change
        self.connections_opened += change > 0
        self.changed()

    def changed(self) -> None:
        """Wake everyone in `wait_until`. Called by whoever changes something here."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_until(self, true: Callable[[], bool], timeout: float) -> None:
        """Return once `true()` is; TimeoutError with the ledger's content after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not true():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise TimeoutError(f"not true within {timeout} s: {self!r}") from None

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it; of the entries the last 100."""
        return {
            "in_flight": self.in_flight,
            "queued": self.queued,
            "loading": self.loading,
            "prefill": self.prefill,
            "generating": self.generating,
            "requests": _plain(self.requests),
            "polls": self.polls,
            "outcomes": _plain(self.outcomes),
            "completed": self.completed,
            "disconnected": _plain(self.disconnected),
            "abandoned": _plain(self.abandoned),
            "faults": _plain(self.faults),
            "loads": self.loads,
            "unloads": self.unloads,
            "reloads": _plain(self.reloads),
            "tokens_generated": self.tokens_generated,
            "body_bytes": self.body_bytes,
            "connections_opened": self.connections_opened,
            "connections_open": self.connections_open,
            "last_disconnect_noticed": self.last_disconnect_noticed,
            "entries": [asdict(entry) for entry in list(self.entries)[-100:]],
        }

    def __repr__(self) -> str:
        facts = {key: value for key, value in self.as_dict().items() if value and key != "entries"}
        return f"Ledger({facts}, last={list(self.entries)[-3:]})"


def _plain(counter: Mapping[str, int]) -> dict[str, int]:
    return {key: value for key, value in sorted(counter.items()) if value}
