"""Filters: may this host take this request at all? Each answer is a reason in words, or None for yes."""

from collections.abc import Set as AbstractSet
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from gateway.dialects.request import InferenceRequest
from gateway.fleet.health import State
from gateway.fleet.snapshot import HostView

_EJECTED: Final = State.EJECTED
_TRIAL: Final = State.TRIAL


class Rejection(StrEnum):
    """Why a host was left out. Those in LASTING stand however desperate we are."""

    PINNED = "pinned_elsewhere"
    NOT_ALLOWED = "not_allowed"
    TRIED = "tried"
    MODEL_MISSING = "model_missing"
    DRAINING = "draining"
    EJECTED = "circuit_open"
    TRIAL_BUSY = "trial_busy"
    UNKNOWN = "inventory_unknown"


LASTING: Final = (Rejection.PINNED, Rejection.NOT_ALLOWED, Rejection.TRIED, Rejection.MODEL_MISSING, Rejection.DRAINING)


def reaches(request: InferenceRequest, host: str) -> bool:
    """Whether the caller's key is good for a host."""
    if not request.hosts:
        return True
    for one in request.hosts:  # noqa: SIM110 - compiled, a generator costs each host something, though hardly a key names any
        if fnmatchcase(host, one):
            return True
    return False


def reject(request: InferenceRequest, view: HostView, tried: AbstractSet[str]) -> Rejection | None:
    """Why ``view`` may not take ``request``; None if it may. ``tried``: hosts that already failed it."""
    if request.pin and request.pin != view.name:
        return Rejection.PINNED
    if not reaches(request, view.name):
        return Rejection.NOT_ALLOWED
    if view.name in tried:
        return Rejection.TRIED
    if view.available is None:
        return Rejection.UNKNOWN
    if request.model not in view.available:
        return Rejection.MODEL_MISSING
    if view.draining:
        return Rejection.DRAINING
    state = view.state
    if state is _EJECTED:
        return Rejection.EJECTED
    if state is _TRIAL and view.leases:
        return Rejection.TRIAL_BUSY
    return None


def in_words(rejection: Rejection, view: HostView) -> str:
    """The reason as people read it."""
    match rejection:
        case Rejection.PINNED:
            return "is not the host that was asked for"
        case Rejection.NOT_ALLOWED:
            return "is none that the caller's key is good for"
        case Rejection.DRAINING:
            return "is draining: it takes no new requests"
        case Rejection.TRIED:
            return "was tried and failed"
        case Rejection.MODEL_MISSING:
            return "does not have the model"
        case Rejection.EJECTED:
            return f"is ejected: {view.health.why}"
        case Rejection.TRIAL_BUSY:
            return "is on trial with another request"
        case Rejection.UNKNOWN:
            return f"has not told which models it has: {view.health.why or 'its list failed'}"
