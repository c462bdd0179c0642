"""Log lines: one canonical JSON line a generation, derived from its record, and one a job; the program's own messages beside them.

Lines are gathered on the loop and written by a thread, ten times a second: a blocked terminal or disk stalls no stream. What
cannot be held (LINES_LIMIT) is dropped and counted. No prompt, answer or credential is ever in a line.
"""

import json
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any

import msgspec

from gateway.config import LogConfig
from gateway.errors import ConfigError
from gateway.fleet.jobs import Job, JobOutcome
from gateway.record import GenerationRecord, Outcome
from gateway.telemetry.context import current

LINES_LIMIT = 50_000
FLUSH_SECONDS = 0.1
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


Line = GenerationRecord | dict[str, Any]


class LogWriter:
    """Writes lines in order. ``schedule(seconds, callback)`` is the loop's ``call_later``; ``dropped`` is called per lost line."""

    def __init__(self, config: LogConfig, dropped: Callable[[], None]) -> None:
        self._stream = _opened(config.path)
        self._owned = bool(config.path)
        terminal = not config.path and sys.stdout.isatty()
        pretty = config.format == "pretty" or (config.format == "auto" and terminal)
        self._generation = _generation_pretty if pretty else _generation_json
        self._message = _message_pretty if pretty else _message_json
        self._level = _LEVELS[config.level]
        self._dropped = dropped
        self._pending: list[Line] = []
        self._batches: queue.SimpleQueue[list[Line] | None] = queue.SimpleQueue()
        self._schedule: Callable[[float, Callable[[], None]], object] | None = None
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._thread.start()

    def attach(self, schedule: Callable[[float, Callable[[], None]], object]) -> None:
        """From now on flush by the loop's timer."""
        self._schedule = schedule

    def generation(self, record: GenerationRecord) -> None:
        """The canonical line of one generation."""
        if self._level <= logging.INFO or (self._level <= logging.WARNING and record.outcome not in _CALM):
            self.line(record)

    def job(self, job: Job) -> None:
        """The line of one job."""
        assert job.outcome is not None
        worth = logging.INFO if job.outcome in _CALM_JOBS else logging.WARNING
        if self._level <= worth:
            self.line(_job_fields(job, "info" if worth == logging.INFO else "warning"))

    def line(self, fields: Line) -> None:
        """One line, still to be put into words. Only from the event loop's thread."""
        if len(self._pending) >= LINES_LIMIT:
            self._dropped()
            return
        self._pending.append(fields)
        if len(self._pending) == 1:
            if self._schedule is None:
                self.flush()
            else:
                self._schedule(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand what is gathered to the writer's thread, unless it is far behind: then hold it back, up to the limit."""
        if self._pending and self._batches.qsize() < 16:
            self._batches.put(self._pending)
            self._pending = []
        elif self._pending and self._schedule is not None:
            self._schedule(FLUSH_SECONDS, self.flush)

    def close(self, seconds: float = 5.0) -> None:
        """Write what is left, at most for ``seconds``."""
        if self._pending:
            self._batches.put(self._pending)
            self._pending = []
        self._batches.put(None)
        self._thread.join(seconds)
        if self._owned:
            self._stream.close()

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                self._stream.write(b"".join([self._words(line) for line in batch]))
                if not self._owned:
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # a full disk or a closed pipe must not end the writer; the lines are lost, the service is not

    def _words(self, line: Line) -> bytes:
        try:
            return self._message(line) if isinstance(line, dict) else self._generation(line)
        except Exception as error:  # noqa: BLE001 - a line that cannot be put into words must not cost its neighbours
            return _message_json({"event": "message", "level": "error", "message": f"a line was lost: {error!r}"})


def _opened(path: str) -> IO[bytes]:
    if not path:
        return sys.stdout.buffer
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise ConfigError(f"cannot write log.path = {path!r}: {error.strerror}") from None


class LogHandler(logging.Handler):
    """The program's own messages (standard logging) as lines of the same writer. Made in the loop's thread; safe from any."""

    def __init__(self, writer: LogWriter, call_soon: Callable[..., object]) -> None:
        super().__init__()
        self._writer = writer
        self._call_soon = call_soon
        self._home = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "ts": _timestamp(record.created),
            "level": record.levelname.lower(),
            "event": "message",
            "logger": record.name,
            "message": _message_of(record),
        }
        fields |= _whose()
        if record.exc_info:
            fields["exception"] = "".join(traceback.format_exception(*record.exc_info))
        if threading.get_ident() == self._home:
            self._writer.line(fields)
            return
        try:
            self._call_soon(self._writer.line, fields)
        except RuntimeError:  # the loop is closed: the last words of a stopping process
            self._writer.line(fields)
            self._writer.flush()


def _whose() -> dict[str, str]:
    """The ids of the request on whose behalf this is said, if it is for one."""
    trace = current.get()
    if trace is None:
        return {}
    return {"request_id": trace.request_id, "trace_id": trace.trace_id, "span_id": trace.span_id}


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # its arguments do not fit: better an odd message than none
        return f"{record.msg} {record.args!r}"


_CALM = frozenset((Outcome.OK, Outcome.CANCELLED, Outcome.CLIENT_ERROR))
_CALM_JOBS = frozenset((JobOutcome.SUCCEEDED, JobOutcome.STOPPED, JobOutcome.CANCELLED))
COSTS_LIMIT = 3  # the cheapest hosts of a decision; all are in the route explainer


def _generation_json(record: GenerationRecord) -> bytes:
    """The record's own JSON behind ``ts``, ``level`` and ``event``."""
    route = record.route
    if route is not None and len(route.costs) > COSTS_LIMIT:
        record = msgspec.structs.replace(record, route=msgspec.structs.replace(route, costs=route.costs[:COSTS_LIMIT]))
    level = b"info" if record.outcome in _CALM else b"warning"
    head = b'{"ts":"%b","level":"%b","event":"generation",' % (_timestamp(record.received_at).encode(), level)
    return head + _encode(record)[1:] + b"\n"


def _job_fields(job: Job, level: str) -> dict[str, Any]:
    """What ``GET /api/jobs`` tells of it, and words for people."""
    seconds = round(job.seconds(0.0), 3)
    hosts = ", ".join(f"{name} {part.state}" for name, part in job.parts.items())
    return {
        "ts": _timestamp(job.started),
        "level": level,
        "event": "job",
        "message": f"{job.kind} {job.model}: {job.outcome} after {seconds:.1f} s ({hosts})",
        "id": job.id,
        "kind": job.kind,
        "model": job.model,
        "outcome": job.outcome,
        "reason": job.stopped,
        "started_at": round(job.started, 3),
        "duration_seconds": seconds,
        "hosts": [
            {"host": name, "state": part.state, "completed_bytes": part.completed, "error": part.error}
            for name, part in job.parts.items()
        ],
        "left_out": dict(job.left_out),
        **_whose(),
    }


def _shown(text: str) -> bytes:
    """One line for a terminal: what a caller or a host named can neither end it nor command the terminal."""
    if not text[:-1].isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:-1]) + "\n"
    return text.encode(errors="backslashreplace")


def _generation_pretty(record: GenerationRecord) -> bytes:
    ttft = "" if record.ttft_seconds is None else f" first {record.ttft_seconds:.2f}s"
    why = f" ({record.reason})" if record.reason else ""
    route = record.route.reason if record.route else "-"
    text = (
        f"{_timestamp(record.received_at)[11:23]} {record.outcome:14} {record.model} -> {record.host or '-'} [{route}]"
        f" queue {record.queue_seconds:.2f}s{ttft} total {record.duration_seconds:.2f}s {record.usage.output_tokens} tokens {record.id}{why}\n"
    )
    return _shown(text)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _timestamp(seconds: float) -> str:
    """RFC 3339 with milliseconds, UTC."""
    milliseconds = int(seconds * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


_encoder = msgspec.json.Encoder(enc_hook=str).encode


def _encode(value: object) -> bytes:
    try:
        return _encoder(value)
    except ValueError:  # half a character, from a client's \\ud800: JSON can still say it
        return json.dumps(msgspec.to_builtins(value, enc_hook=str)).encode()


def _message_json(fields: dict[str, Any]) -> bytes:
    return _encode(fields) + b"\n"


def _message_pretty(fields: dict[str, Any]) -> bytes:
    text = f"{fields['ts'][11:23]} {fields['level']:14} {fields['message']}\n"
    return _shown(text) + str(fields.get("exception", "")).encode(errors="backslashreplace")
