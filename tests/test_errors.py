"""The error tree: each error says its status, a code for programs, and whose fault it is."""

import pytest

from gateway import errors
from gateway.errors import CorralError, Fault, HostsFailed, QueueFull

ALL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CorralError)
]  # fmt: skip


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_complete(kind: type[CorralError]) -> None:
    """With a status of an error, a code, a fault, a sentence of documentation, and its message."""
    assert 400 <= kind.status <= 599
    assert kind.code.replace("_", "").isalpha()
    assert kind.code.islower()
    assert isinstance(kind.fault, Fault)
    assert kind.__doc__
    error = kind("no", retry_after=2.0)
    assert (str(error), error.message, error.retry_after) == ("no", "no", 2.0)
    assert kind("no").retry_after is None


def test_codes_are_unique() -> None:
    """A program can tell the errors apart."""
    assert len({kind.code for kind in ALL}) == len(ALL)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_whose_fault(kind: type[CorralError]) -> None:
    """A client's fault is a 4xx, and nobody else's is."""
    assert (kind.fault is Fault.CLIENT) is (kind.status < 500)


def test_the_hosts_own_status() -> None:
    """When every host failed alike, its status says more than ours."""
    assert HostsFailed("no").status == 502
    assert HostsFailed("no", status=503, retry_after=5.0).status == 503
    assert HostsFailed.status == 502


def test_errors_are_told_apart() -> None:
    """Each is a CorralError, and no other one."""
    with pytest.raises(QueueFull):
        raise QueueFull("full")
    assert not issubclass(QueueFull, HostsFailed)
