"""A request's place in its trace: read from its headers or made, before anything else is known of it.

Ids are made by hand, so that log lines and outgoing headers have them from the start at the cost of a microsecond; whether spans are
kept is decided at the end (``sampling.py``).
"""

import random
import re
from contextvars import ContextVar
from typing import Final

from gateway.config import TracingConfig
from gateway.record import Trace

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_STATE_MOST: Final = 512
_NEVER_ID: Final = ("0" * 32, "0" * 16)
_SHARE_DIGITS: Final = 14  # of a trace id, from its end: W3C has them random

current: ContextVar[Trace | None] = ContextVar("current", default=None)
"""The request on whose behalf this runs: of what is logged meanwhile. Inherited by the tasks that it starts."""


def parsed(traceparent: str) -> tuple[str, str, bool] | None:
    """(trace id, span id, sampled) of a ``traceparent``; None where it is none, by W3C's rules."""
    match = _TRACEPARENT.match(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or trace_id in _NEVER_ID or span_id in _NEVER_ID:
        return None
    return trace_id, span_id, bool(int(flags, 16) & 1)


class Contexts:
    """Makes traces. A caller's trace is joined; its sampled flag counts where ``tracing.trust_incoming`` says so."""

    def __init__(self, config: TracingConfig, rng: random.Random) -> None:
        self._ours = config.on
        self._trust = config.trust_incoming
        self._all = config.mode == "all"
        self._below = int(config.ratio * 16**_SHARE_DIGITS) if config.mode == "sampled" else 0
        self._bits = rng.getrandbits

    def begin(self, id_: str, traceparent: str = "", tracestate: str = "", request_id: str = "") -> Trace:
        """The place of a request with these headers. ``id_`` is its name where the caller gave it none that can be one, else its
        trace's id or one like it. Where neither the caller nor this gateway traces, there is no trace, and its ids are empty."""
        if request_id:
            match = _REQUEST_ID.match(request_id)
            request_id = "" if match is None else request_id
        named = request_id or id_
        if not traceparent and not self._ours:  # nobody would ever see its ids
            return Trace("", "", "", False, "", named or f"{self._bits(128):032x}")
        chance = f"{self._bits(192):048x}"
        trace_id, span_id = chance[:32], chance[32:]
        joined = parsed(traceparent) if traceparent else None
        if joined is None:
            return Trace(trace_id, span_id, "", self._samples(trace_id), "", named or trace_id, "", self._ours)
        trace_id, parent_id, asked = joined
        sampled = self._samples(trace_id) or (asked and self._trust and self._ours)
        state = tracestate if len(tracestate) <= _STATE_MOST else ""
        return Trace(trace_id, span_id, parent_id, sampled, state, named or trace_id, traceparent, self._ours)

    def enter(self, id_: str, traceparent: str, tracestate: str, request_id: str) -> Trace:
        """Idem, and what is said from now on is said on its behalf; until ``current`` is set to None."""
        trace = self.begin(id_, traceparent, tracestate, request_id)
        current.set(trace)
        return trace

    def follow(self, id_: str) -> Trace:
        """The place of a generation of Corral's own: in the trace of the request that it is for, if it is for one."""
        whose = current.get()
        made = self.begin(id_)
        if whose is None:
            return made
        return Trace(
            whose.trace_id,
            made.span_id,
            whose.parent_id,
            whose.sampled,
            whose.state,
            whose.request_id,
            whose.header,
            self._ours,
        )

    def _samples(self, trace_id: str) -> bool:
        """By the trace id alone: gateways that share a trace agree."""
        return self._ours and (self._all or int(trace_id[-_SHARE_DIGITS:], 16) < self._below)
