"""Many hosts' lists as one: every name once, the right row of it, whole, whatever the order of the hosts."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet import merge
from gateway.fleet.health import Health, State
from gateway.fleet.host import AvailableModel, LoadedModel
from gateway.fleet.snapshot import HostView
from tests.builders import OTHER, TEXT
from tests.fleet.builders import available, loaded, view
from tests.profiles import PROPERTY

OLD, NEW, NEWER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"
EJECTED = Health(State.EJECTED, "gone")


def names(rows: Iterable[Any]) -> list[str]:
    """The names of rows."""
    return [row["name"] for row in rows]


# -- tags -------------------------------------------------------------------------------------------------------------------------


def test_every_name_once() -> None:
    """The union of all hosts, newest first, each row as a host sent it."""
    text, other = available(TEXT, modified_at=OLD), available(OTHER, modified_at=NEW)
    rows = merge.tags([view("a", has=[text]), view("b", has=[text, other]), view("c", has=None), view("d", has=[])])
    assert rows == [other.row, text.row]


def test_names_that_mean_the_same_are_one() -> None:
    """However hosts spell it."""
    rows = merge.tags([view("a", has=["SmolLM2:135M"]), view("b", has=["library/smollm2:135m"])])
    assert len(rows) == 1


BEST = {
    "most hosts have it": ([("1", NEW), ("2", OLD), ("2", OLD)], ("2", OLD)),
    "the newest of equally many": ([("1", OLD), ("2", NEW)], ("2", NEW)),
    "the newest row of one digest": ([("1", OLD), ("1", NEW)], ("1", NEW)),
    "most hosts have it, newest row": ([("1", OLD), ("2", NEWER), ("1", NEW)], ("1", NEW)),
    "the largest digest where nothing else decides": ([("1", OLD), ("2", OLD)], ("2", OLD)),
}


@pytest.mark.parametrize(("held", "expected"), BEST.values(), ids=BEST)
def test_where_hosts_differ_under_one_name(held: list[tuple[str, str]], expected: tuple[str, str]) -> None:
    """The digest that most hosts have, then the newest."""
    models = [available(TEXT, digest * 64, modified_at) for digest, modified_at in held]
    (row,) = merge.tags([view(f"gpu{index}", has=[model]) for index, model in enumerate(models)])
    assert (row["digest"], row["modified_at"]) == (expected[0] * 64, expected[1])


def test_newest_by_the_instant() -> None:
    """Hosts stand in different time zones, and Ollama tells each host's local time."""
    early = available(TEXT, modified_at="2026-06-01T12:00:00.5+09:00")
    late = available(OTHER, modified_at="2026-06-01T09:00:00-04:00")
    assert names(merge.tags([view("tokyo", has=[early]), view("new-york", has=[late])])) == [OTHER, TEXT]


@pytest.mark.parametrize("odd", ["", "yesterday", "2026-13-45T99:99:99Z", "2026-01-01"])
def test_what_has_no_time_is_the_oldest(odd: str) -> None:
    """A host that tells none, or none that can be read, hides nothing."""
    rows = merge.tags(
        [view("a", has=[available(TEXT, modified_at=odd), available(OTHER, modified_at="1970-01-01T00:00:00Z")])]
    )
    assert names(rows) == [OTHER, TEXT]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"),
        ("2026-01-01T00:00:00.09Z", "2026-01-01T00:00:00.1Z"),
        ("2026-01-01T00:00:00.123456788Z", "2026-01-01T00:00:00.123456789Z"),
        ("1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"),
        ("2026-11-22T13:35:17Z", "2319-03-04T13:35:17Z"),
    ],
)
def test_times_of_any_precision(older: str, newer: str) -> None:
    """Go leaves trailing zeros of a fraction out."""
    models = [available(TEXT, modified_at=newer), available(OTHER, modified_at=older)]
    for has in (models, models[::-1]):
        assert names(merge.tags([view(has=has)])) == [TEXT, OTHER]


@pytest.mark.parametrize(
    ("health", "seen_at", "shown"),
    [
        pytest.param(EJECTED, 10.0, True, id="down since a moment ago"),
        pytest.param(EJECTED, 9.9, False, id="down for too long"),
        pytest.param(EJECTED, None, False, id="never seen"),
        pytest.param(Health(State.HEALTHY), 0.0, True, id="up, but polled rarely"),
    ],
)
def test_a_host_that_is_down(health: Health, seen_at: float | None, shown: bool) -> None:
    """Its last inventory is told for a while: tools would think that models are gone."""
    rows = merge.tags([view("a", has=[TEXT], health=health, seen_at=seen_at), view("b", has=[OTHER])], 10.0)
    assert sorted(names(rows)) == sorted([TEXT, OTHER] if shown else [OTHER])


# -- ps ---------------------------------------------------------------------------------------------------------------------------


def test_every_loaded_model_once() -> None:
    """One row for a name and digest, from the host where it stays longest; latest expiry first."""
    rows = merge.ps(
        [
            view("a", holds=[loaded(TEXT, expires_at=OLD)]),
            view("b", holds=[loaded(TEXT, expires_at=NEWER), loaded(OTHER, expires_at=NEW)]),
            view("c"),
        ]
    )
    assert [(row["name"], row["expires_at"]) for row in rows] == [(TEXT, NEWER), (OTHER, NEW)]


def test_two_spellings_in_memory() -> None:
    """Are one model, as on disk."""
    views = [view("a", holds=[loaded("SmolLM2:135M", "1" * 64)]), view("b", holds=[loaded(TEXT, "1" * 64)])]
    assert len(merge.ps(views)) == 1


def test_one_name_of_two_digests() -> None:
    """Hosts that hold different models under one name are both told."""
    views = [view("a", holds=[loaded(TEXT, "1" * 64)]), view("b", holds=[loaded(TEXT, "2" * 64)])]
    assert {row["digest"] for row in merge.ps(views)} == {"1" * 64, "2" * 64}


def test_longest_by_the_instant() -> None:
    """The host where a model stays longest may stand in another time zone."""
    early, late = "2026-06-01T12:00:00.5+09:00", "2026-06-01T09:00:00-04:00"
    rows = merge.ps([view("a", holds=[loaded(expires_at=early)]), view("b", holds=[loaded(expires_at=late)])])
    assert [row["expires_at"] for row in rows] == [late]


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(view(holds=[TEXT], health=EJECTED), id="of an ejected host"),
        pytest.param(view(holds=[LoadedModel(TEXT, "1" * 64, 0, 0, 0, "", {})]), id="proven by an answer only"),
    ],
)
def test_what_is_not_told(left_out: HostView) -> None:
    """A row that no reachable host has sent would be made up."""
    assert merge.ps([left_out]) == []


# -- version ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        pytest.param(["0.33.0", "0.9.2", "0.33.1"], "0.9.2", id="by number, not by text"),
        pytest.param(["0.33.0"], "0.33.0", id="one host"),
        pytest.param(["", "0.33.0"], "0.33.0", id="one has not told"),
        pytest.param(["1.0", "0.33.0.1"], "0.33.0.1", id="of different lengths"),
        pytest.param(["0.33.0-rc2", "0.33.1"], "0.33.0-rc2", id="a candidate"),
        pytest.param(["0.33.0-rc2", "0.33.0"], "0.33.0-rc2", id="a candidate before its release"),
        pytest.param(["dev", "0.33.0"], "dev", id="no number at all"),
        pytest.param([], None, id="no host"),
        pytest.param([""], None, id="nobody has told"),
    ],
)
def test_the_lowest_version(versions: list[str], expected: str | None) -> None:
    """Clients gate features upwards on it, so the fleet is as old as its oldest host."""
    assert merge.version([view(f"gpu{index}", version=text) for index, text in enumerate(versions)]) == expected


@pytest.mark.parametrize("odd", ["0.²", "٣.1", "1" * 5000, "0." + "9" * 5000, "1\n2", "-", ".", "v1"])
def test_a_version_that_is_none(odd: str) -> None:
    """Counts as very old, whatever stands for its numbers, and stops nobody."""
    assert merge.version([view("a", version="0.33.0"), view("b", version=odd)]) == odd
    assert merge.version([view("a", version=odd)]) == odd


def test_an_ejected_host_has_no_version() -> None:
    """Who does not answer holds nobody back."""
    assert merge.version([view("a", version="0.1.0", health=EJECTED), view("b", version="0.33.0")]) == "0.33.0"


# -- OpenAI rows ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "modified_at", "expected"),
    [
        (TEXT, "2026-11-22T13:35:17.199062361Z", {"created": 1795354517, "owned_by": "library"}),
        (TEXT, "2026-11-22T08:35:17.199-05:00", {"created": 1795354517, "owned_by": "library"}),
        (TEXT, "2026-11-22T13:35:17Z", {"created": 1795354517, "owned_by": "library"}),
        (TEXT, "", {"created": 0, "owned_by": "library"}),
        (TEXT, "yesterday", {"created": 0, "owned_by": "library"}),
        ("acme/m:1b", "", {"created": 0, "owned_by": "acme"}),
        ("hub.example.com/acme/m:1b", "", {"created": 0, "owned_by": "acme"}),
    ],
)
def test_openai_rows(name: str, modified_at: str, expected: dict[str, Any]) -> None:
    """A row of /v1/models is derived from one of /api/tags, as Ollama does."""
    row = available(name, modified_at=modified_at).row
    assert merge.openai_models([row]) == [{"id": name, "object": "model", **expected}]


# -- whatever the hosts hold ------------------------------------------------------------------------------------------------------

digests = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
times = st.sampled_from([OLD, NEW, NEWER])
models = st.sampled_from([TEXT, OTHER, "acme/m:1b"])
on_disk = st.builds(available, models, digests, times)
in_memory = st.builds(loaded, models, digests, times)
views = st.lists(
    st.builds(
        lambda name, has, holds, health, version: view(name, has=has, holds=holds, health=health, version=version),
        st.uuids().map(str),
        st.none() | st.lists(on_disk, max_size=4),
        st.lists(in_memory, max_size=4),
        st.sampled_from([Health(State.HEALTHY), Health(State.TRIAL), EJECTED]),
        st.sampled_from(["", "0.33.0", "0.33.1", "0.4.0"]),
    ),
    max_size=5,
)


@given(data=st.data(), hosts=views)
@PROPERTY
def test_the_order_of_hosts_does_not_matter(data: st.DataObject, hosts: list[HostView]) -> None:
    """The same views in any order give the same answers."""
    other = data.draw(st.permutations(hosts))
    assert merge.tags(hosts) == merge.tags(other)
    assert merge.ps(hosts) == merge.ps(other)
    assert merge.version(hosts) == merge.version(other)


@given(hosts=views)
@PROPERTY
def test_rows_are_whole(hosts: list[HostView]) -> None:
    """Each row is one that a host has sent, with its digest; each name on disk is there exactly once."""
    disk: list[AvailableModel] = [model for host in hosts for model in (host.available or {}).values()]
    tags, ps = merge.tags(hosts), merge.ps(hosts)
    assert sorted(names(tags)) == sorted({model.name for model in disk})
    assert all(row in [model.row for model in disk] for row in tags)
    assert all(row in [model.row for host in hosts for model in host.loaded.values()] for row in ps)
    assert all(len(row["digest"]) == 64 for row in [*tags, *ps])


@given(hosts=views)
@PROPERTY
def test_rows_are_sorted(hosts: list[HostView]) -> None:
    """Newest first on disk, longest first in memory."""
    modified = [row["modified_at"] for row in merge.tags(hosts)]
    expires = [row["expires_at"] for row in merge.ps(hosts)]
    assert (modified, expires) == (sorted(modified, reverse=True), sorted(expires, reverse=True))


@given(hosts=views)
@PROPERTY
def test_the_row_of_the_majority(hosts: list[HostView]) -> None:
    """No digest is on more hosts than the one shown, and no row of the shown digest is newer."""
    for row in merge.tags(hosts):
        held = [model for host in hosts for model in (host.available or {}).values() if model.name == row["name"]]
        count = Counter(model.digest for model in held)
        assert count[row["digest"]] == max(count.values())
        assert row["modified_at"] == max(m.row["modified_at"] for m in held if m.digest == row["digest"])


@given(hosts=views)
@PROPERTY
def test_the_row_that_stays_longest(hosts: list[HostView]) -> None:
    """For each name and digest in memory of a host that answers."""
    held = [model for host in hosts if host.health != EJECTED for model in host.loaded.values()]
    shown = {(row["name"], row["digest"]): row["expires_at"] for row in merge.ps(hosts)}
    assert set(shown) == {(model.name, model.digest) for model in held}
    for key, expires_at in shown.items():
        assert expires_at == max(model.expires_at for model in held if (model.name, model.digest) == key)
