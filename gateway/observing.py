"""Joins what is told of requests to the rest: traces to the fleet and the metrics, the program's own messages to the log's lines."""

import asyncio
import importlib
import logging
from collections.abc import Callable

from gateway.api.middleware import QuietNonsense
from gateway.config import TracingConfig
from gateway.errors import ConfigError
from gateway.fleet.poller import PollNews
from gateway.fleet.registry import Fleet
from gateway.process import package_version
from gateway.record import Refusal
from gateway.telemetry.context import Contexts
from gateway.telemetry.lines import Visit
from gateway.telemetry.logs import LogHandler, LogWriter
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Exporter, Tracer


def tracer(config: TracingConfig, fleet: Fleet, replica: str, metrics: Metrics) -> Tracer | None:
    """Sends spans where the configuration says; None where it names no place. Raises ConfigError. Only then is OpenTelemetry imported."""
    if not config.on:
        return None
    try:
        otlp = importlib.import_module("gateway.telemetry.otlp")
        importlib.import_module("regex")
    except ImportError as error:
        raise ConfigError(
            f"tracing needs what Corral's extra `tracing` has ({error.name}): pip install '.[tracing]'"
        ) from None
    exporter: Exporter = otlp.Exporter(config.url, package_version(), replica)

    def url_of(host: str) -> str:
        return next((one.url for one in fleet.hosts if one.name == host), "")

    def dropped(reason: str, spans: int) -> None:
        metrics.spans_dropped.labels(reason).inc(spans)

    return Tracer(config, exporter, asyncio.get_running_loop(), url_of, dropped)


def turned_away(log: LogWriter, tracer: Tracer | None) -> Callable[[Refusal], None] | None:
    """Takes inference that ended before it was a generation, for the log and the traces; None: neither wants to know."""
    visited = log.visited
    if visited is None and tracer is None:
        return None

    def told(one: Refusal) -> None:
        if visited is not None:
            at, seconds = one.received_at, one.duration_seconds
            visited(Visit(at, seconds, "POST", one.path, one.endpoint, one.status, one.client, one.code))
        if tracer is not None:
            tracer.refused(one)

    return told


def poll_news(tracer: Tracer | None, contexts: Contexts) -> Callable[[PollNews], None] | None:
    """Takes polls that went otherwise than the last one, for the traces; None where there are none."""
    if tracer is None:
        return None
    return lambda news: tracer.polled(news, contexts.begin(""))


class Messages:
    """What is said through ``logging``, at ``level`` or above, as lines of ``writer``: from ``attach`` to ``detach``.

    What libraries say below a warning is left to them: the database's driver says each statement, with what is written.
    """

    def __init__(self, writer: LogWriter, level: str) -> None:
        self._writer = writer
        self._level = level
        self._handler: LogHandler | None = None
        self._quiet = QuietNonsense()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lines are flushed by the loop's timer from now on."""
        self._writer.attach(loop.call_later)
        self._handler = LogHandler(self._writer, loop.call_soon_threadsafe)
        root = logging.getLogger()
        root.addHandler(self._handler)
        level = logging.getLevelNamesMapping()[self._level.upper()]
        root.setLevel(max(level, logging.WARNING))
        logging.getLogger("gateway").setLevel(level)
        logging.getLogger("aiohttp.server").addFilter(self._quiet)

    def detach(self) -> None:
        """Idempotent."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            logging.getLogger("aiohttp.server").removeFilter(self._quiet)
