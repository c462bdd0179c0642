"""Log lines: one canonical JSON line a generation, derived from its record; the program's own messages beside it.

Lines are gathered on the loop and written by a thread, ten times a second: a blocked terminal or disk stalls no stream. What
cannot be held (LINES_LIMIT) is dropped and counted. No prompt, answer or credential is ever in a line.
"""

import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any

import orjson

from gateway.config import LogConfig
from gateway.record import GenerationRecord, Outcome

LINES_LIMIT = 50_000
FLUSH_SECONDS = 0.1
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogWriter:
    """Writes lines in order. ``schedule(seconds, callback)`` is the loop's ``call_later``; ``dropped`` is called per lost line."""

    def __init__(self, config: LogConfig, dropped: Callable[[], None]) -> None:
        self._stream: IO[bytes] = open(config.path, "ab", buffering=0) if config.path else sys.stdout.buffer  # noqa: SIM115 - closed in close
        self._owned = bool(config.path)
        terminal = not config.path and sys.stdout.isatty()
        self._render = _pretty if config.format == "pretty" or (config.format == "auto" and terminal) else _json
        self._level = _LEVELS[config.level]
        self._dropped = dropped
        self._pending: list[dict[str, Any]] = []
        self._batches: queue.SimpleQueue[list[dict[str, Any]] | None] = queue.SimpleQueue()
        self._schedule: Callable[[float, Callable[[], None]], object] | None = None
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._thread.start()

    def attach(self, schedule: Callable[[float, Callable[[], None]], object]) -> None:
        """From now on flush by the loop's timer."""
        self._schedule = schedule

    def generation(self, record: GenerationRecord) -> None:
        """The canonical line of one generation."""
        if self._level <= logging.INFO:
            self.line(_fields(record))

    def line(self, fields: dict[str, Any]) -> None:
        """One line. Only from the event loop's thread."""
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
                self._stream.write(b"".join([self._render(fields) for fields in batch]))
                if not self._owned:
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # a full disk or a closed pipe must not end the writer; the lines are lost, the service is not


class LogHandler(logging.Handler):
    """The program's own messages (standard logging) as lines of the same writer. Safe from any thread."""

    def __init__(self, writer: LogWriter, call_soon: Callable[..., object]) -> None:
        super().__init__()
        self._writer = writer
        self._call_soon = call_soon

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": "message",
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = "".join(traceback.format_exception(*record.exc_info))
        try:
            self._call_soon(self._writer.line, fields)
        except RuntimeError:  # the loop is closed: the last words of a stopping process
            self._writer.line(fields)
            self._writer.flush()


def _fields(record: GenerationRecord) -> dict[str, Any]:
    route, usage = record.route, record.usage
    return {
        "ts": datetime.fromtimestamp(record.received_at, UTC).isoformat(timespec="milliseconds"),
        "level": "info" if record.outcome in (Outcome.OK, Outcome.CANCELLED, Outcome.CLIENT_ERROR) else "warning",
        "event": "generation",
        "id": record.id,
        "dialect": record.dialect,
        "endpoint": record.endpoint,
        "operation": record.operation,
        "model": record.model,
        "requested_model": record.requested_model[:200],
        "stream": record.stream,
        "host": record.host,
        "outcome": record.outcome,
        "reason": record.reason[:500],
        "phase": record.phase,
        "cancelled_by": record.cancelled_by,
        "status": record.status,
        "attempts": [{"host": a.host, "outcome": a.outcome, "why": a.why[:200]} for a in record.attempts],
        "route_reason": route.reason if route else None,
        "predicted_s": _rounded(route.predicted_seconds) if route else None,
        "runner_up": route.runner_up if route else None,
        "cold": record.cold,
        "queue_s": _rounded(record.queued_seconds),
        "ttft_s": _rounded(record.ttft_seconds),
        "duration_s": _rounded(record.duration_seconds),
        "overhead_s": _rounded(record.overhead_seconds),
        "tpot_s": _rounded(record.seconds_per_output_token),
        "max_gap_s": _rounded(record.max_gap_seconds),
        "tokens_in": usage.input_tokens,
        "tokens_out": usage.output_tokens,
        "accounting": usage.accounting,
        "load_s": _rounded(usage.load_seconds),
        "chunks": record.chunks,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "client": record.client,
        "session": record.session,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _json(fields: dict[str, Any]) -> bytes:
    return orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _pretty(fields: dict[str, Any]) -> bytes:
    moment = str(fields["ts"])[11:23]
    if fields["event"] != "generation":
        text = f"{moment} {fields['level']:7} {fields.get('message', fields['event'])}"
        return (text + ("\n" + fields["exception"] if "exception" in fields else "") + "\n").encode()
    ttft = "" if fields["ttft_s"] is None else f" first {fields['ttft_s']:.2f}s"
    why = f" ({fields['reason']})" if fields["reason"] else ""
    text = (
        f"{moment} {fields['outcome']:14} {fields['model']} -> {fields['host'] or '-'} [{fields['route_reason'] or '-'}]"
        f" queue {fields['queue_s']:.2f}s{ttft} total {fields['duration_s']:.2f}s {fields['tokens_out']} tokens {fields['id']}{why}\n"
    )
    return text.encode()
