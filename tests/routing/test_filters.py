"""May this host take this request at all? Every reason against it, and what people read of it."""

import pytest

from gateway.fleet.health import Health, State
from gateway.fleet.snapshot import HostView
from gateway.routing.filters import Rejection, in_words, reject
from tests.builders import OTHER, TEXT
from tests.fleet.builders import request, view

SUSPECT, TRIAL = Health(State.SUSPECT, "2 polls failed"), Health(State.TRIAL, "500")
EJECTED = Health(State.EJECTED, "cannot connect: refused")
HOSTS = {
    "healthy": (view(), None),
    "suspect": (view(health=SUSPECT), None),
    "busy": (view(leases=1), None),
    "busy beyond its slots": (view(leases=9), None),
    "on trial": (view(health=TRIAL), None),
    "on trial with another request": (view(health=TRIAL, leases=1), Rejection.TRIAL_BUSY),
    "on trial with another request and slots free": (view(health=TRIAL, slots=4, leases=1), Rejection.TRIAL_BUSY),
    "ejected": (view(health=EJECTED), Rejection.EJECTED),
    "without the model": (view(has=[OTHER]), Rejection.MODEL_MISSING),
    "without any model": (view(has=[]), Rejection.MODEL_MISSING),
    "without having told its models": (view(has=None), Rejection.UNKNOWN),
    "draining": (view(draining=True), Rejection.DRAINING),
    "draining without the model": (view(has=[], draining=True), Rejection.MODEL_MISSING),
    "draining and ejected": (view(draining=True, health=EJECTED), Rejection.DRAINING),
    "ejected without the model": (view(has=[OTHER], health=EJECTED), Rejection.MODEL_MISSING),
    "ejected without having told its models": (view(has=None, health=EJECTED), Rejection.UNKNOWN),
}


@pytest.mark.parametrize(("host", "expected"), HOSTS.values(), ids=HOSTS)
def test_reject(host: HostView, expected: Rejection | None) -> None:
    """The first reason that holds, or none."""
    assert reject(request(), host, frozenset()) is expected


@pytest.mark.parametrize(("host", "expected"), HOSTS.values(), ids=HOSTS)
def test_a_host_that_was_tried_is_not_tried_again(host: HostView, expected: Rejection | None) -> None:
    """Whatever else there is to say of it; that others were tried is nothing against it."""
    assert reject(request(), host, frozenset({"gpu1", "gpu2"})) is Rejection.TRIED
    assert reject(request(), host, frozenset({"gpu2"})) is expected


def test_the_model_is_known_by_its_canonical_name() -> None:
    """However the client and the host spell it."""
    assert reject(request("Library/SmolLM2:135M"), view(has=["smollm2:135m"]), frozenset()) is None
    assert reject(request(TEXT), view(has=["SMOLLM2:135m"]), frozenset()) is None


def test_a_pin_leaves_one_host() -> None:
    """Whatever else is wrong with the others; and the one that was named is judged as ever."""
    assert reject(request(pin="gpu2"), view("gpu1"), frozenset()) is Rejection.PINNED
    assert reject(request(pin="gpu2"), view("gpu1", has=[]), frozenset({"gpu1"})) is Rejection.PINNED
    assert reject(request(pin="gpu2"), view("gpu2"), frozenset()) is None
    assert reject(request(pin="gpu2"), view("gpu2", has=[]), frozenset()) is Rejection.MODEL_MISSING


@pytest.mark.parametrize(
    ("hosts", "why"), [((), None), (("gpu1",), None), (("lab", "gpu*"), None), (("lab", "gpu2"), Rejection.NOT_ALLOWED)]
)
def test_hosts_that_a_key_is_good_for(hosts: tuple[str, ...], why: Rejection | None) -> None:
    """By pattern; without any, all."""
    assert reject(request(hosts=hosts), view("gpu1"), frozenset()) is why


WORDS = {
    Rejection.PINNED: (view(), "is not the host that was asked for"),
    Rejection.NOT_ALLOWED: (view(), "is none that the caller's key is good for"),
    Rejection.DRAINING: (view(draining=True), "is draining: it takes no new requests"),
    Rejection.TRIED: (view(), "was tried and failed"),
    Rejection.MODEL_MISSING: (view(has=[]), "does not have the model"),
    Rejection.EJECTED: (view(health=EJECTED), "is ejected: cannot connect: refused"),
    Rejection.TRIAL_BUSY: (view(health=TRIAL, leases=1), "is on trial with another request"),
    Rejection.UNKNOWN: (view(has=None, health=EJECTED), "has not told which models it has: cannot connect: refused"),
}


@pytest.mark.parametrize("rejection", Rejection)
def test_words(rejection: Rejection) -> None:
    """Every reason is told in words that say what is wrong with the host."""
    host, expected = WORDS[rejection]
    assert in_words(rejection, host) == expected


def test_words_for_a_healthy_host_that_has_not_told_its_models() -> None:
    """A host whose list failed has no other fault to name."""
    assert in_words(Rejection.UNKNOWN, view(has=None)) == "has not told which models it has: its list failed"
