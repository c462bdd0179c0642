"""Which hosts an operation concerns."""

import pytest

from gateway.config import PlacementConfig
from gateway.errors import BadRequest
from gateway.fleet.health import Health, State
from gateway.fleet.host import Host
from gateway.fleet.snapshot import HostView
from gateway.fleet.targets import Targets, exactly, holder, holders, named, pinned, placed, taking
from tests.fleet.builders import HEALTHY, changed, view


def host_view(name: str, *models: str, tags: tuple[str, ...] = (), health: Health = HEALTHY) -> HostView:
    """A host with these models."""
    return changed(view(name, has=models, health=health), host=Host(name, "http://h", 1, tags))


A, B, C = host_view("a", "m:1b", tags=("big",)), host_view("b", "m:1b", "n:1b"), host_view("c", tags=("small", "old"))
FLEET = (A, B, C)


def ejected(view: HostView) -> HostView:
    """The same host, out of routing."""
    return changed(view, health=Health(State.EJECTED, "gone"))


def draining(view: HostView) -> HostView:
    """The same host, about to be taken out."""
    return changed(view, draining=True)


def names(targets: Targets) -> list[str]:
    """Who is asked."""
    return [host.name for host in targets.hosts]


def test_pinned() -> None:
    """One host, or none; nothing else."""
    assert (pinned("", "ab"), pinned("b", "ab")) == ("", "b")
    with pytest.raises(BadRequest, match="no host is named 'a,b'; there are: a, b"):
        pinned("a,b", "ab")


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", []), (" , ", []), ("a", ["a"]), ("c, a,a", ["a", "c"]), ("a,b,c", ["a", "b", "c"])],
)
def test_named(header: str, expected: list[str]) -> None:
    """In the configuration's order, each once."""
    assert [view.name for view in named(header, FLEET)] == expected


def test_an_unknown_name() -> None:
    """The known ones are told."""
    with pytest.raises(BadRequest, match="no host is named 'z'; known: a, b, c"):
        named("a,z", FLEET)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("llama3.2:1b", ["b"], id="pattern"),
        pytest.param("qwen3:latest", ["a", "b", "c"], id="a name without a tag is the latest"),
        pytest.param("qwen3:8b", ["a", "c"], id="the first rule wins; tags and hosts"),
        pytest.param("team/x:latest", ["c"], id="any case, with a namespace"),
        pytest.param("phi:latest", ["a", "b", "c"], id="no rule"),
        pytest.param("", ["a", "b", "c"], id="no name"),
    ],
)
def test_placed(model: str, expected: list[str]) -> None:
    """The first rule that matches, else all."""
    rules = (
        PlacementConfig(("llama3*", "x*"), ("b",)),
        PlacementConfig(("QWEN3",), ("a", "b", "c")),
        PlacementConfig(("qwen*",), ("c",), ("big",)),
        PlacementConfig(("qwen*",), ("b",)),
        PlacementConfig(("Team/*",), tags=("old", "none")),
    )
    assert [view.name for view in placed(model, FLEET, rules)] == expected


def test_exactly() -> None:
    """The hosts that were named, and of those that are ejected it counts that they were; all ejected: all of them, at least."""
    assert exactly((A, B, C)) == Targets((A.host, B.host, C.host), {}, by_name=True)
    assert exactly((A, ejected(B), C)) == Targets((A.host, C.host), {"b": "ejected: gone"}, by_name=True)
    assert exactly((ejected(A), ejected(B))) == Targets((A.host, B.host), {}, by_name=True)


def test_taking() -> None:
    """A draining host gets nothing new, though the others be ejected; whoever names it asks it all the same."""
    assert taking((A, draining(B), C)) == Targets((A.host, C.host), {"b": "draining"})
    assert taking((ejected(A), draining(B), ejected(draining(C)))) == Targets(
        (A.host,), {"b": "draining", "c": "ejected: gone"}
    )
    assert taking((draining(A), draining(B))) == Targets((), {"a": "draining", "b": "draining"})
    assert exactly((draining(A),)) == Targets((A.host,), {}, by_name=True)
    assert holders("m:1b", (draining(A), B)) == Targets((A.host, B.host), {})


def test_holders() -> None:
    """Who has it; else one that says so."""
    assert names(holders("m:1b", FLEET)) == ["a", "b"]
    assert holders("m:1b", (ejected(A), B, C)) == Targets((B.host,), {"a": "ejected: gone"})
    assert names(holders("x:1b", (ejected(A), B, C))) == ["b"]
    assert names(holders("x:1b", ())) == []


def test_holder() -> None:
    """The first healthy one that has it; else one that says so."""
    assert names(holder("m:1b", FLEET)) == ["a"]
    assert names(holder("n:1b", FLEET)) == ["b"]
    assert names(holder("m:1b", (ejected(A), B, C))) == ["b"]
    assert names(holder("m:1b", (ejected(A), C))) == ["a"]
    assert names(holder("x:1b", FLEET)) == ["a"]
    assert names(holder("m:1b", (draining(A), B))) == ["b"]
    assert names(holder("m:1b", (draining(A), ejected(B)))) == ["a"]
    suspect = host_view("a", "m:1b", health=Health(State.SUSPECT, "slow"))
    assert names(holder("m:1b", (suspect, B))) == ["b"]
