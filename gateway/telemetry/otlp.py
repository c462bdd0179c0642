"""Spans to a collector, by OTLP over HTTP: OpenTelemetry's own model of them, its encoding and its exporter.

The only room that imports opentelemetry, and imported only where there is a collector: that takes a third of a second and 40 MB.
The exporter itself reads the usual variables: headers, timeout, compression, certificates.
"""

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.telemetry.spans import SCHEMA, Attributes, Span, Value

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class _Hushed(logging.Filter):
    """Keeps what the exporter says of each failure: the tracer tells once what is wrong, not with every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.said = record.getMessage()[:300]
        return False


class Exporter:
    """Sends to one collector. ``version`` and ``instance`` are this gateway's; a resource of the environment's wins over them."""

    def __init__(self, url: str, version: str, instance: str) -> None:
        self._hushed = _Hushed()
        self._logger = logging.getLogger(trace_exporter.__name__)
        self._logger.addFilter(self._hushed)
        ours = {"service.name": "corral", "service.version": version, "service.instance.id": instance}
        self._resource = Resource(ours).merge(OTELResourceDetector().detect())
        self._scope = InstrumentationScope("corral", version, SCHEMA)
        self._exporter = trace_exporter.OTLPSpanExporter(endpoint=url)

    @property
    def why(self) -> str:
        """What was wrong last."""
        return self._hushed.said

    def export(self, spans: Sequence[Span]) -> bool:
        """Send; whether they arrived. Blocks, with retries, for at most OTEL_EXPORTER_OTLP_TIMEOUT (10 s)."""
        return self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def unhush(self) -> None:
        """Let others hear the exporter again."""
        self._logger.removeFilter(self._hushed)

    def _readable(self, span: Span) -> ReadableSpan:
        state = TraceState.from_header([span.state]) if span.state else TraceState()
        trace_id = int(span.trace_id, 16)
        parent = None
        if span.parent_id:
            parent = SpanContext(trace_id, int(span.parent_id, 16), span.server, _SAMPLED, state)
        return ReadableSpan(
            name=_text(span.name),
            context=SpanContext(trace_id, int(span.span_id, 16), False, _SAMPLED, state),
            parent=parent,
            resource=self._resource,
            attributes=_clean(span.attributes),
            events=[Event(one.name, _clean(one.attributes), _nanoseconds(one.at)) for one in span.events],
            kind=SpanKind.SERVER if span.server else SpanKind.CLIENT,
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, _text(span.error)),
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(span.end),
            instrumentation_scope=self._scope,
        )


def _nanoseconds(unix: float) -> int:
    return int(unix * 1e9)


def _clean(attributes: Attributes) -> Attributes:
    """Half a character, in what a caller or a host chose, would cost the whole batch."""
    return {name: _value(value) for name, value in attributes.items()}


def _value(value: Value) -> Value:
    if isinstance(value, str):
        return _text(value)
    return [_text(one) for one in value] if isinstance(value, list) else value


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
