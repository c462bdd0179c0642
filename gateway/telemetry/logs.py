"""The log's writer: one canonical JSON line a generation, derived from its record, one a job, one (if asked for) for every other request; the
program's own messages beside them. ``lines.py`` puts them into words.

Lines are gathered on the loop and written by a thread, ten times a second: a blocked terminal or disk stalls no stream. What
cannot be held (LINES_LIMIT) is dropped and counted.
"""

import logging
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from gateway.config import LogConfig
from gateway.fleet.jobs import Job, JobOutcome
from gateway.plural import counted
from gateway.record import GenerationRecord
from gateway.telemetry.lines import (
    CALM,
    Visit,
    generation_json,
    generation_pretty,
    job_fields,
    message_json,
    message_pretty,
    timestamp,
    unspoken,
    visit_fields,
    whose,
)
from gateway.telemetry.logfile import LogFile

LINES_LIMIT = 50_000
FLUSH_SECONDS = 0.1
_SHARE_DIGITS = 8  # of an id, from its end: they are random
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


Line = GenerationRecord | dict[str, Any]


class LogWriter:
    """Writes lines in order. ``schedule(seconds, callback)`` is the loop's ``call_later``; ``dropped`` is called per lost line."""

    def __init__(self, config: LogConfig, dropped: Callable[[], None]) -> None:
        self._file = LogFile(config.path)
        terminal = not config.path and sys.stdout.isatty()
        pretty = config.format == "pretty" or (config.format == "auto" and terminal)
        self._generation = generation_pretty if pretty else generation_json
        self._message = message_pretty if pretty else message_json
        self._level = _LEVELS[config.level]
        self._access = config.access
        self._below = int(config.sample * 16**_SHARE_DIGITS)
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
        if record.outcome in CALM:
            worth = self._level <= logging.INFO and (record.trace_kept or self._samples(record.id))
        else:
            worth = self._level <= logging.WARNING
        if worth:
            self.line(record)

    def _samples(self, id_: str) -> bool:
        return self._below == 16**_SHARE_DIGITS or int(id_[-_SHARE_DIGITS:], 16) < self._below

    @property
    def visited(self) -> Callable[[Visit], None] | None:
        """Takes requests that are no generations, if they are to have lines."""
        return self._visit if self._access else None

    def _visit(self, visit: Visit) -> None:
        worth = logging.INFO if visit.status < 500 else logging.WARNING
        if self._level <= worth:
            self.line(visit_fields(visit, "info" if worth == logging.INFO else "warning"))

    def job(self, job: Job) -> None:
        """The line of one job."""
        assert job.outcome is not None
        worth = logging.INFO if job.outcome in _CALM_JOBS else logging.WARNING
        if self._level <= worth:
            self.line(job_fields(job, "info" if worth == logging.INFO else "warning"))

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
        self._file.close()

    def _write(self) -> None:
        lost = 0
        while (batch := self._batches.get()) is not None:
            lost = self._written(batch, lost)  # and their memory is free before there are others

    def _written(self, batch: list[Line], lost: int) -> int:
        """Write these, after ``lost`` others that could not be; how many cannot now, with those."""
        lines = self._in_words(batch)
        if lost:
            self._message(_were_lost(lost), lines)
        failed = self._file.write(lines)
        now_lost = min(failed, len(batch))
        for _ in range(now_lost):
            self._dropped()
        return lost + now_lost if failed else 0

    def _in_words(self, batch: list[Line]) -> bytearray:
        lines = bytearray()
        for line in batch:
            whole = len(lines)
            try:
                if isinstance(line, dict):
                    self._message(line, lines)
                else:
                    self._generation(line, lines)
            except Exception as error:  # noqa: BLE001 - a line that cannot be put into words must not cost its neighbours
                del lines[whole:]
                lost = {"event": "message", "level": "error", "message": f"a line was lost: {error!r}"}
                message_json(lost, lines)
        return lines if lines.isascii() else unspoken(lines)


def _were_lost(count: int) -> dict[str, Any]:
    said = f"the log could not be written for a while: {counted(count, 'line')} lost"
    return {"ts": timestamp(time.time()), "level": "error", "event": "message", "logger": __name__, "message": said}


class LogHandler(logging.Handler):
    """The program's own messages (standard logging) as lines of the same writer. Made in the loop's thread; safe from any."""

    def __init__(self, writer: LogWriter, call_soon: Callable[..., object]) -> None:
        super().__init__()
        self._writer = writer
        self._call_soon = call_soon
        self._home = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "ts": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": "message",
            "logger": record.name,
            "message": _message_of(record),
        }
        fields |= whose()
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


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # its arguments do not fit: better an odd message than none
        return f"{record.msg} {record.args!r}"


_CALM_JOBS = frozenset((JobOutcome.SUCCEEDED, JobOutcome.STOPPED, JobOutcome.CANCELLED))
