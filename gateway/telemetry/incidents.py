"""Spans that stand alone: an inference request that was turned away before it was a generation, and a poll of a host that went otherwise than
the one before it. Pure, as ``spans.py`` is."""

from urllib.parse import urlsplit

from gateway.fleet.poller import PollNews
from gateway.record import Refusal, Trace
from gateway.telemetry.spans import Attributes, Span


def refused(refusal: Refusal, why: str) -> Span:
    """Of a request. ``why``: as ``Sampling`` has it. Nothing of its body is told: it was not read, or nothing can be read in it."""
    trace, failed = refusal.trace, refusal.status >= 500
    attributes: Attributes = {
        "http.request.method": "POST",
        "http.route": refusal.endpoint,
        "url.path": refusal.endpoint,
        "http.response.status_code": refusal.status,
        "corral.request.id": trace.request_id,
        "corral.generation.id": refusal.id,
        "corral.api": refusal.dialect,
        "corral.refused": refusal.code,
        "corral.kept": why,
    }
    if refusal.client:
        attributes["client.address"] = refusal.client
    if failed:
        attributes["error.type"] = refusal.code
    return Span(
        f"POST {refusal.endpoint}",
        True,
        trace.trace_id,
        trace.span_id,
        trace.parent_id,
        trace.state,
        refusal.received_at,
        refusal.received_at + refusal.duration_seconds,
        attributes,
        (),
        refusal.code if failed else None,
    )


def polled(news: PollNews, trace: Trace, why: str) -> Span:
    """Of a poll, in a trace of its own."""
    path = f"/api/{news.endpoint}"
    attributes: Attributes = {
        "http.request.method": "GET",
        "url.path": path,
        "corral.host": news.host.name,
        "corral.health": news.health.value,
        "corral.kept": why,
    }
    parts = urlsplit(news.host.url)
    if parts.hostname:
        attributes["server.address"] = parts.hostname
        attributes["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    if news.reason:
        attributes["error.type"] = news.reason
    end = news.began_at + news.seconds
    error = news.why if news.reason else None
    return Span("poll", False, trace.trace_id, trace.span_id, "", "", news.began_at, end, attributes, (), error)
