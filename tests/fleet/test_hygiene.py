"""What is amiss with a fleet is found and told in words; a well-kept fleet has nothing to tell."""

from typing import Any

import pytest

from gateway.config import PlacementConfig
from gateway.fleet.host import Host
from gateway.fleet.hygiene import FindingKind, findings
from gateway.fleet.snapshot import HostView
from tests.builders import OTHER, TEXT
from tests.fleet.builders import available, changed, loaded, snapshot, view

AMISS: dict[str, tuple[list[HostView], list[tuple[FindingKind, str, tuple[str, ...]]]]] = {
    "nothing": ([view("a"), view("b")], []),
    "one host": ([view("a")], []),
    "nobody has told": ([view("a", has=None, version=""), view("b", has=None, version="")], []),
    "versions": (
        [view("a"), view("b", version="0.32.1"), view("c")],
        [(FindingKind.VERSION_SKEW, "", ("a", "c", "b"))],
    ),
    "digests": (
        [view("a", has=[TEXT]), view("b", has=[available(TEXT, "f" * 64)])],
        [(FindingKind.DIGEST_SKEW, TEXT, ("a", "b"))],
    ),
    "one copy": ([view("a"), view("b", has=[OTHER])], [(FindingKind.FEW_COPIES, TEXT, ("a",))]),
    "one copy, and a host that has not told": ([view("a"), view("b", has=None)], []),
    "contexts": (
        [view("a", holds=[loaded(context=4096)]), view("b", holds=[loaded(context=32768)])],
        [(FindingKind.CONTEXT_SKEW, TEXT, ("b", "a"))],
    ),
    "a context that was asked for": (
        [
            view("a", holds=[loaded(context=4096)]),
            view("b", holds=[loaded(context=512)], runners={loaded().digest: (("num_ctx", 512),)}),
        ],
        [],
    ),
    "a ghost": ([view("a", ghosts=frozenset({TEXT})), view("b")], [(FindingKind.GHOST_MODEL, TEXT, ("a",))]),
}


@pytest.mark.parametrize(("hosts", "expected"), AMISS.values(), ids=AMISS)
def test_findings(hosts: list[HostView], expected: list[Any]) -> None:
    """Each with its kind, its model and the hosts it is about, whom the text names."""
    found = findings(snapshot(*hosts), ())
    assert [(finding.kind, finding.model, tuple(sorted(finding.hosts))) for finding in found] == [
        (kind, model, tuple(sorted(names))) for kind, model, names in expected
    ]
    for finding in found:
        assert all(name in finding.text for name in finding.hosts)
        assert finding.model in finding.text


RULES: dict[str, tuple[PlacementConfig, list[str]]] = {
    "for one host": (PlacementConfig((TEXT,), ("a",)), []),
    "for one host, by its tag": (PlacementConfig(("*",), (), ("big",)), []),
    "for a host that is not there": (PlacementConfig(("*",), ("z",)), []),
    "for two": (PlacementConfig((TEXT,), ("a", "b")), [TEXT]),
    "for others": (PlacementConfig(("qwen*",), ("a",)), [TEXT]),
}


@pytest.mark.parametrize(("rule", "expected"), RULES.values(), ids=RULES)
def test_few_copies_that_are_meant(rule: PlacementConfig, expected: list[str]) -> None:
    """A model that a rule keeps on one host is where it should be."""
    big = changed(view("a", has=[TEXT]), host=Host("a", "http://a.test:11434", 1, ("big",)))
    found = findings(snapshot(big, view("b", has=[]), view("c", has=[])), (rule,))
    assert [finding.model for finding in found] == expected
