"""What was measured: how often, when, and what of it is new; pure."""

import pytest

from gateway.fleet import memory as module
from gateway.fleet.ewma import Estimate
from gateway.fleet.host import Host
from gateway.fleet.memory import AGAIN_SECONDS, FLEET, WEIGHT_MOST, Memory, Remembered
from gateway.fleet.registry import Fleet
from gateway.remembered import Measured, What
from tests.builders import TEXT
from tests.fleet.builders import SIZE, digest_of, host, observation, told

DIGEST = digest_of(TEXT)
GPU1 = host("gpu1")
NOTHING = Remembered(None, None, 0, 0, {}, {}, 0)


def row(value: float = 2.0, *, weight: float = 3.0, at: float = 0.0, **changes: object) -> Measured:
    """What was kept of a model on gpu1."""
    usual = {"host": "gpu1", "digest": DIGEST, "what": What.LOAD_SECONDS, "url": GPU1.url}
    return Measured(**(usual | changes), value=value, weight=weight, at=at)  # type: ignore[arg-type]


def test_what_is_new() -> None:
    """Each value once, with its samples; what was measured while the last was being written is new again."""
    memory = Memory()
    memory.model(GPU1, DIGEST, Estimate(2.0, None, 50.0), 1.0)
    memory.model(GPU1, DIGEST, Estimate(2.0, None, 60.0), 2.0)
    first = memory.new()
    assert [(one.what, one.value, one.weight, one.at) for one in first] == [
        (What.LOAD_SECONDS, 2.0, 1.0, 1.0),
        (What.DECODE_RATE, 60.0, 2.0, 2.0),
    ]
    memory.model(GPU1, DIGEST, Estimate(2.0, None, 70.0), 3.0)
    memory.written(first)
    assert [(one.what, one.value, one.weight) for one in memory.new()] == [(What.DECODE_RATE, 70.0, 3.0)]


def test_samples_count_to_a_bound() -> None:
    """Old ones hardly count in an average any more."""
    memory = Memory()
    for number in range(100):
        memory.keep(GPU1, "", What.SERVICE_SECONDS, 1.0 + number, float(number))
    assert [one.weight for one in memory.new()] == [WEIGHT_MOST]


def test_the_most_that_was_seen() -> None:
    """Weighs as much as it is, and is told again once a day as long as it is seen."""
    memory = Memory()
    memory.keep(GPU1, "", What.VRAM_BYTES, 5e9, 0.0)
    memory.written(memory.new())
    memory.keep(GPU1, "", What.VRAM_BYTES, 5e9, AGAIN_SECONDS - 1)
    assert memory.new() == []
    memory.keep(GPU1, "", What.VRAM_BYTES, 5e9, AGAIN_SECONDS)
    assert [(one.value, one.weight, one.at) for one in memory.new()] == [(5e9, 5e9, AGAIN_SECONDS)]


def test_what_was_kept_before() -> None:
    """Comes back, but not over what was measured since, and goes on from its samples. It is not new."""
    memory = Memory()
    memory.keep(GPU1, DIGEST, What.LOAD_SECONDS, 9.0, 10.0)
    memory.written(memory.new())
    memory.recall(
        [row(2.0, at=-5.0), row(40.0, what=What.DECODE_RATE, at=-5.0), row(1e9, digest="", what=What.LOAD_RATE)]
    )
    assert memory.new() == []
    assert memory.of(GPU1) == Remembered(None, 1e9, 0, 0, {DIGEST: Estimate(9.0, None, 40.0)}, {}, 0)
    memory.keep(GPU1, DIGEST, What.DECODE_RATE, 50.0, 11.0)
    assert [one.weight for one in memory.new()] == [4.0]


def test_another_host_of_the_name() -> None:
    """Knows nothing of what the first one measured, and begins anew."""
    memory, moved = Memory(), Host("gpu1", "http://elsewhere.test:11434")
    memory.recall([row(weight=8.0)])
    assert memory.of(moved) == NOTHING
    memory.keep(moved, DIGEST, What.LOAD_SECONDS, 7.0, 1.0)
    assert [(one.url, one.weight) for one in memory.new()] == [(moved.url, 1.0)]
    assert memory.of(GPU1) == NOTHING


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured longest ago goes, also from what is new."""
    monkeypatch.setattr(module, "VALUES_LIMIT", 2)
    monkeypatch.setattr(module, "HOSTS_LIMIT", 2)
    memory = Memory()
    for number in range(4):
        memory.keep(GPU1, f"d{number}", What.LOAD_SECONDS, 1.0, float(number))
    assert [one.digest for one in memory.new()] == ["d2", "d3"]
    for name in ("gpu2", "gpu3"):
        memory.keep(host(name), "d", What.LOAD_SECONDS, 1.0, 9.0)
    assert [one.host for one in memory.new()] == ["gpu2", "gpu3"]
    assert memory.of(GPU1) == NOTHING


# -- of a whole fleet ----------------------------------------------------------------------------------------------------------------


def measured() -> Fleet:
    """A fleet that has loaded a model on gpu1, and had one answer of it."""
    fleet = Fleet([GPU1])
    fleet.observe("gpu1", observation())
    lease = fleet.lease("gpu1", TEXT, (), 1.0, cold=True)
    fleet.answered(lease, TEXT, 3.0)
    fleet.learn(lease, 4.0, told(load_seconds=2.0, decode_rate=50.0, prefill_rate=1000.0))
    fleet.release(lease)
    fleet.observe("gpu1", observation(5.0, holds=[TEXT]))
    return fleet


def test_a_fleet_that_starts_again() -> None:
    """Knows all that was measured, and its first decision can use it."""
    before = measured()
    after = Fleet([GPU1, host("gpu2")])
    after.recall(before.memory.new())
    old, new = before.view("gpu1", 9.0), after.view("gpu1", 9.0)
    assert new.estimates == old.estimates == {DIGEST: Estimate(2.0, 1000.0, 50.0)}
    assert (new.service_seconds, new.load_rate) == (old.service_seconds, old.load_rate) == (4.0, SIZE / 2.0)
    assert (new.vram_seen, new.models_seen) == (old.vram_seen, old.models_seen) == (SIZE, 1)
    told_of = after.snapshot(9.0)
    assert (told_of.lengths, told_of.sizes) == ({DIGEST: 10.0}, {DIGEST: SIZE})
    assert after.view("gpu2", 9.0).estimates == {}


def test_a_host_that_comes_back() -> None:
    """Is known at once; another one under its name is not."""
    fleet = measured()
    fleet.configure([])
    fleet.configure([GPU1])
    assert fleet.view("gpu1", 9.0).estimates == {DIGEST: Estimate(2.0, 1000.0, 50.0)}
    fleet.configure([Host("gpu1", "http://elsewhere.test:11434")])
    assert fleet.view("gpu1", 9.0).estimates == {}


def test_what_was_measured_since_the_start() -> None:
    """Is not replaced by what was known before, when the database comes late."""
    fleet = measured()
    fleet.recall([row(60.0, at=-9.0), row(8.0, digest="", what=What.SERVICE_SECONDS), row(3.0, digest="other")])
    view = fleet.view("gpu1", 9.0)
    assert view.estimates == {DIGEST: Estimate(2.0, 1000.0, 50.0), "other": Estimate(3.0)}
    assert view.service_seconds == 4.0


def test_a_model_wherever_it_is() -> None:
    """Needs no host to be remembered by."""
    memory = Memory()
    memory.keep(FLEET, DIGEST, What.OUTPUT_TOKENS, 120.0, 1.0)
    assert memory.everywhere(What.OUTPUT_TOKENS) == {DIGEST: 120.0}
    assert memory.everywhere(What.MEMORY_BYTES) == {}
