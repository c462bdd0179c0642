"""What several hosts say while they work on one model, merged into what one Ollama would say. No IO, no clock.

- Each status is said once: what comes before the layers when the first host says it, any other when no host that still runs has yet
  to say it. So "writing manifest" does not come before the slowest host's bars are full.
- Each digest is one bar: ``completed`` is the least of the hosts that still run, never falls and never passes ``total``. A host that
  has not come to the digest counts as 0; one that says anything but a manifest's status is past its layers and counts as ``total``.
- A bar moves at most once in PACE_SECONDS, as Ollama's own do, but for its last step.
- The last line is ``success`` if all succeeded, else an error that names who failed and who did not.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Line = dict[str, Any]

PACE_SECONDS = 0.06
BARS_MOST, STATUSES_MOST = 500, 1000  # what a host says beyond them is not told: no model has so many layers
TEXT_LIMIT = 2000  # characters of a host's words that are kept
BEFORE_LAYERS = ("pulling manifest", "retrieving manifest")
SUCCESS = "success"


class PartState(StrEnum):
    """How far a host is with its part."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


class Part:
    """One host's part of a job. ``completed`` and ``total`` are bytes of ``digest``, the last one that the host spoke of."""

    def __init__(self, state: PartState = PartState.WAITING, error: str = "") -> None:
        self.state = state
        self.status = ""
        self.digest = ""
        self.completed = 0
        self.total = 0
        self.error = error

    @property
    def running(self) -> bool:
        """Whether the host has not ended its part."""
        return self.state in (PartState.WAITING, PartState.RUNNING)

    def end(self, state: PartState, error: str = "") -> None:
        """The part is over; only the first end counts."""
        if self.running:
            self.state, self.error = state, error[:TEXT_LIMIT]

    def take(self, line: Mapping[str, Any]) -> None:
        """Note what the host said."""
        self.state = PartState.RUNNING
        self.status = _text(line, "status")
        if digest := _text(line, "digest"):
            self.digest, self.completed, self.total = digest, _count(line, "completed"), _count(line, "total")


class _Bar:
    """One digest. ``hosts``: how many bytes each host that spoke of it has."""

    def __init__(self, status: str, digest: str) -> None:
        self.status = status
        self.digest = digest
        self.total = 0
        self.completed = 0
        self.hosts: dict[str, int] = {}
        self.said_at: float | None = None
        self.said = -1

    def due(self, now: float) -> bool:
        """Whether there is something to say, and it is time."""
        if self.said_at is None:
            return True
        last_step = self.completed == self.total
        return self.completed > self.said and (last_step or now - self.said_at >= PACE_SECONDS)

    def line(self, now: float) -> Line:
        """What is said now; zeros are left out, as Ollama does."""
        self.said, self.said_at = self.completed, now
        numbers = {"total": self.total, "completed": self.completed}
        return {"status": self.status, "digest": self.digest} | {key: value for key, value in numbers.items() if value}


class Progress:
    """Takes each host's lines and ends, gives the lines to say. ``parts`` are by host; those that have ended do not count."""

    def __init__(self, parts: Mapping[str, Part], *, name_hosts: bool) -> None:
        self._parts = parts
        self._name_hosts = name_hosts
        self._said: set[str] = set()
        self._waiting: dict[str, set[str]] = {}  # status that is not said yet → the hosts that have come to it
        self._bars: dict[str, _Bar] = {}
        self._past: set[str] = set()

    @property
    def running(self) -> bool:
        """Whether any host still runs."""
        return any(part.running for part in self._parts.values())

    def take(self, host: str, line: Mapping[str, Any], now: float) -> list[Line]:
        """What ``host`` said. One of:

        1. an error, 2. success: its part is over; 3. a layer's progress; 4. another status.
        """
        part = self._parts[host]
        if not part.running:
            return []
        if error := line.get("error"):
            return self.end(host, PartState.FAILED, _words(error), now)
        part.take(line)
        if part.status == SUCCESS:
            return self.end(host, PartState.SUCCEEDED, "", now)
        if part.digest and "digest" in line:
            return self._layer(host, part, now)
        return self._status(host, part.status, now)

    def end(self, host: str, state: PartState, error: str, now: float) -> list[Line]:
        """``host``'s part is over."""
        self._parts[host].end(state, error)
        return [*(self._moved(now) if self.running else ()), *self._reached()]

    def last(self) -> Line:
        """How it ended, when nothing runs any more."""
        if error := failure(self._parts, name_hosts=self._name_hosts):
            return {"error": error}
        return {"status": SUCCESS}

    def _layer(self, host: str, part: Part, now: float) -> list[Line]:
        bar = self._bars.get(part.digest)
        if bar is None:
            if len(self._bars) >= BARS_MOST:
                return []
            bar = self._bars[part.digest] = _Bar(part.status, part.digest)
        bar.total = max(bar.total, part.total)
        bar.hosts[host] = max(bar.hosts.get(host, 0), part.completed)
        return self._moved(now)

    def _status(self, host: str, status: str, now: float) -> list[Line]:
        early = status in BEFORE_LAYERS
        if not early:
            self._past.add(host)
        if status and status not in self._said and len(self._said) + len(self._waiting) < STATUSES_MOST:
            self._waiting.setdefault(status, set()).update(self._parts if early else (host,))
        return [*(() if early else self._moved(now)), *self._reached()]

    def _reached(self) -> list[Line]:
        """The statuses that every host which still runs has come to."""
        running = {host for host, part in self._parts.items() if part.running}
        due = [status for status, hosts in self._waiting.items() if running <= hosts]
        for status in due:
            del self._waiting[status]
            self._said.add(status)
        return [{"status": status} for status in due]

    def _moved(self, now: float) -> list[Line]:
        running = [host for host, part in self._parts.items() if part.running]
        for bar in self._bars.values():
            least = min((bar.total if host in self._past else bar.hosts.get(host, 0) for host in running), default=0)
            bar.completed = max(bar.completed, min(least, bar.total))
        return [bar.line(now) for bar in self._bars.values() if bar.due(now)]


def failure(parts: Mapping[str, Part], *, name_hosts: bool) -> str:
    """Who failed and why, and who did not; "" where nobody failed. Without names it is the one host's own text."""
    failed = {host: part for host, part in parts.items() if part.state in (PartState.FAILED, PartState.STOPPED)}
    if not failed:
        return ""
    if not name_hosts:
        return "; ".join(part.error for part in failed.values())
    text = by_host({host: part.error for host, part in failed.items()})
    worked = [host for host, part in parts.items() if part.state is PartState.SUCCEEDED]
    return f"{text} (succeeded on {', '.join(worked)})" if worked else text


def by_host(errors: Mapping[str, str]) -> str:
    """Each error once, behind the hosts that it is of: ``gpu1, gpu2: no space left on device; gpu3: …``."""
    hosts: dict[str, list[str]] = {}
    for host, error in errors.items():
        hosts.setdefault(error, []).append(host)
    return "; ".join(f"{', '.join(names)}: {error}" for error, names in hosts.items())


def _text(line: Mapping[str, Any], key: str) -> str:
    value = line.get(key)
    return value[:TEXT_LIMIT] if isinstance(value, str) else ""


def _count(line: Mapping[str, Any], key: str) -> int:
    value = line.get(key)
    return value if type(value) is int and 0 < value < 2**62 else 0


def _words(error: Any) -> str:
    try:
        return str(error)
    except RecursionError:
        return "an error that is nested too deeply"
