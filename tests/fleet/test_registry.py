"""The fleet's state: what is polled, leased and learned, and what a snapshot shows of it."""

import msgspec
import pytest

from gateway.fleet.ewma import Estimate
from gateway.fleet.health import BreakerPolicy, Event, State
from gateway.fleet.prompts import Known
from gateway.fleet.registry import SAMPLES_PER_SECOND, Fleet
from gateway.fleet.room import room_for
from tests.builders import OTHER, TEXT
from tests.fleet.builders import SIZE, available, digest_of, host, loaded, observation, told

DIGEST = digest_of(TEXT)
SMALL_CONTEXT, LARGE_CONTEXT = (("num_ctx", 2048),), (("num_ctx", 8192),)


LONG = "2050-01-01T00:00:00Z"


def fleet(slots: int = 2, **polled: object) -> Fleet:
    """One host, polled once."""
    made = Fleet([host("gpu1", slots)], BreakerPolicy(failures=2, eject_seconds=1.0))
    made.observe("gpu1", observation(**polled))  # type: ignore[arg-type]
    return made


# -- before anything is known -------------------------------------------------------------------------------------------------------


def test_a_new_host() -> None:
    """A host that was not polled has told nothing, and is suspect."""
    view = Fleet([host()]).view("gpu1", 0.0)
    assert (view.available, view.seen_at, view.health.state, view.slots) == (None, None, State.SUSPECT, 1)


def test_an_unknown_host() -> None:
    """What is not configured does not exist."""
    with pytest.raises(KeyError):
        Fleet([host()]).view("gpu2", 0.0)


def test_hosts_are_in_the_order_of_the_configuration() -> None:
    """A snapshot holds every host, once."""
    names = [f"gpu{number}" for number in (3, 1, 2)]
    made = Fleet(map(host, names))
    assert [view.name for view in made.snapshot(1.0).hosts] == [one.name for one in made.hosts] == names
    assert made.snapshot(1.0).taken_at == 1.0


# -- polls --------------------------------------------------------------------------------------------------------------------------


def test_whether_anybody_lists_a_model() -> None:
    """By its canonical name; of who has not told, nothing is known."""
    made = Fleet([host("gpu1"), host("gpu2")])
    assert not made.lists(TEXT)
    made.observe("gpu2", observation(5.0, ["SmolLM2:135M"]))
    assert (made.lists(TEXT), made.lists(OTHER)) == (True, False)


def test_who_is_told_of_models_may_look() -> None:
    """A model that was loaded before the first poll is told of when the fleet knows all that the poll saw."""
    seen: list[list[str]] = []
    made = Fleet([host()], moved=lambda change: seen.append([change.model, *(made.view("gpu1", 5.0).available or ())]))
    made.observe("gpu1", observation(5.0, [OTHER, TEXT], [TEXT]))
    assert seen == [[TEXT, OTHER, TEXT]]
    assert list(made.view("gpu1", 6.0).available or ()) == [OTHER, TEXT]


def test_a_poll_is_taken_in() -> None:
    """Models are found by canonical name on disk, by digest in memory."""
    made = Fleet([host()])
    made.observe("gpu1", observation(5.0, ["SmolLM2:135M"], [TEXT], "0.33.1"))
    view = made.view("gpu1", 6.0)
    assert view.available == {TEXT: available("SmolLM2:135M")}
    assert list(view.loaded) == [DIGEST]
    assert (view.version, view.latency_seconds, view.seen_at, view.health.state) == (
        "0.33.1",
        0.001,
        5.0,
        State.HEALTHY,
    )
    assert view.digest_of(TEXT) == digest_of("SmolLM2:135M")
    assert view.digest_of("nope:latest") is None


def test_a_poll_that_did_not_ask_changes_nothing() -> None:
    """What a poll left out stays as it was."""
    made = fleet(holds=[TEXT])
    made.observe("gpu1", observation(1.0, has=None, holds=None))
    view = made.view("gpu1", 1.0)
    assert set(view.available or ()) == {TEXT, OTHER}
    assert list(view.loaded) == [DIGEST]


def test_a_snapshot_does_not_change() -> None:
    """What was handed out is a value: later events do not reach it."""
    made = fleet()
    before = made.snapshot(0.0)
    lease = made.lease("gpu1", TEXT, LARGE_CONTEXT, 0.0, cold=True)
    made.learn(lease, 1.0, told(1.0, 1.0, 1.0))
    made.observe("gpu1", observation(1.0, [], [OTHER]))
    made.note("gpu1", Event.UNREACHABLE, 1.0)
    view = before.hosts[0]
    assert (view.leases, view.loading, view.runners, view.estimates) == (0, {}, {}, {})
    assert (set(view.available or ()), view.loaded, view.health.state) == ({TEXT, OTHER}, {}, State.HEALTHY)


def test_a_host_that_cannot_be_reached_holds_nothing() -> None:
    """Its memory is gone with it; what it has on disk it will have again."""
    made = fleet(holds=[TEXT])
    made.lease("gpu1", TEXT, LARGE_CONTEXT, 0.0, cold=False)
    made.note("gpu1", Event.UNREACHABLE, 1.0, "refused")
    view = made.view("gpu1", 1.0)
    assert (view.loaded, view.runners, view.health.why) == ({}, {}, "refused")
    assert TEXT in (view.available or {})


def test_a_trial_begins_by_itself() -> None:
    """A look at the right time is enough."""
    made = fleet()
    for _ in range(2):
        made.note("gpu1", Event.ATTEMPT_FAILED, 10.0, "500")
    states = [made.view("gpu1", now).health.state for now in (10.0, 10.9, 11.0, 12.0)]
    assert states == [State.EJECTED, State.EJECTED, State.TRIAL, State.TRIAL]


# -- leases -------------------------------------------------------------------------------------------------------------------------


def test_leases_are_counted() -> None:
    """A slot is taken and given back once."""
    made = fleet()
    first, second = (made.lease("gpu1", TEXT, (), 0.0, cold=False) for _ in range(2))
    assert (made.is_full("gpu1", TEXT), made.lease_count, made.view("gpu1", 0.0).leases) == (True, 2, 2)
    assert [made.release(first), made.release(first), made.release(second)] == [True, False, True]
    assert (made.is_full("gpu1", TEXT), made.lease_count, made.leases_granted) == (False, 0, 2)


def test_a_lease_of_a_model_nobody_told() -> None:
    """In panic a host is used that never told its models: the lease has no digest."""
    made = Fleet([host()])
    lease = made.lease("gpu1", TEXT, (), 0.0, cold=True)
    assert lease.digest is None
    made.answered(lease, TEXT, 1.0)
    assert made.release(lease)
    assert made.view("gpu1", 1.0).loaded == {}


def test_a_cold_lease_marks_its_model_as_loading() -> None:
    """A burst sees it before any poll does, with the time when it began."""
    made = fleet()
    first = made.lease("gpu1", TEXT, LARGE_CONTEXT, 5.0, cold=True)
    made.lease("gpu1", TEXT, LARGE_CONTEXT, 6.0, cold=True)
    view = made.view("gpu1", 6.0)
    assert (view.loading, view.runners) == ({DIGEST: 5.0}, {DIGEST: LARGE_CONTEXT})
    made.answered(first, TEXT, 7.0)
    assert made.view("gpu1", 7.0).loading == {}


def test_a_cold_lease_given_back_loads_no_more() -> None:
    """Whoever leaves takes the load with them."""
    made = fleet()
    made.release(made.lease("gpu1", TEXT, (), 5.0, cold=True))
    assert made.view("gpu1", 5.0).loading == {}


def test_a_load_that_another_waits_for_goes_on() -> None:
    """When one of two who wait for a load leaves, Ollama goes on loading for the other."""
    made = fleet()
    first = made.lease("gpu1", TEXT, (), 5.0, cold=True)
    made.lease("gpu1", TEXT, (), 6.0, cold=True)
    made.release(first)
    assert DIGEST in made.view("gpu1", 7.0).loading


def test_a_warm_lease_loads_nothing() -> None:
    """The runner's options are noted; others than it has make Ollama load anew, whatever was thought of it."""
    made = fleet(holds=[TEXT])
    own = (("num_ctx", 4096),)
    lease = made.lease("gpu1", TEXT, own, 0.0, cold=False)
    view = made.view("gpu1", 0.0)
    assert (view.loading, view.runners, lease.cold, lease.reload) == ({}, {DIGEST: own}, False, None)
    lease = made.lease("gpu1", TEXT, SMALL_CONTEXT, 1.0, cold=False)
    view = made.view("gpu1", 1.0)
    assert (view.loading, view.runners) == ({DIGEST: 1.0}, {DIGEST: SMALL_CONTEXT})
    assert (lease.cold, lease.reload) == (True, "num_ctx")


def test_a_model_that_was_loaded_anew() -> None:
    """Has the context that was asked for before any poll says so: who wants the former one again makes it load once more."""
    made = fleet(holds=[TEXT])
    made.answered(made.lease("gpu1", TEXT, SMALL_CONTEXT, 1.0, cold=True), TEXT, 2.0)
    held = made.view("gpu1", 2.0).loaded[DIGEST]
    assert (held.context, held.vram) == (2048, SIZE)
    assert made.lease("gpu1", TEXT, (("num_ctx", 4096),), 3.0, cold=False).reload == "num_ctx"


@pytest.mark.parametrize("proved", [True, False])
def test_a_host_that_is_full(proved: bool) -> None:
    """Is known by a model that had to leave when another came, or was about to; one that somebody unloads shows nothing."""
    made = fleet()

    def poll(at: float, *holds: str) -> bool:
        held = tuple(loaded(name, expires_at="2319-01-01T00:00:00Z") for name in holds)
        made.observe("gpu1", msgspec.structs.replace(observation(at), loaded=held, began=at))
        return made.view("gpu1", at).full

    assert not poll(1.0, TEXT)
    assert not poll(2.0)
    assert not poll(3.0, TEXT)
    lease = made.lease("gpu1", OTHER, (), 4.0, cold=True)
    if proved:
        made.answered(lease, OTHER, 5.0)
    assert poll(6.0, *([OTHER] if proved else []))


# -- answers ------------------------------------------------------------------------------------------------------------------------


def test_the_first_byte_proves_that_a_model_is_loaded() -> None:
    """Whatever the last poll said; what the proof cannot tell is taken from what the model took elsewhere, or takes on disk."""
    made = fleet()
    made.answered(made.lease("gpu1", TEXT, LARGE_CONTEXT, 0.0, cold=True), TEXT, 1.0)
    (proof,) = made.view("gpu1", 1.0).loaded.values()
    assert (proof.name, proof.digest, proof.context, proof.vram, proof.row) == (TEXT, DIGEST, 8192, SIZE, {})


def test_an_answer_does_not_replace_what_a_poll_saw() -> None:
    """The host's own row says more."""
    made = fleet(holds=[TEXT])
    before = made.view("gpu1", 0.0).loaded
    made.answered(made.lease("gpu1", TEXT, (), 0.0, cold=True), TEXT, 1.0)
    assert made.view("gpu1", 1.0).loaded == before


def test_an_answer_heals() -> None:
    """A suspect host that answers is healthy."""
    made = fleet()
    made.note("gpu1", Event.ATTEMPT_FAILED, 1.0)
    made.answered(made.lease("gpu1", TEXT, (), 2.0, cold=False), TEXT, 2.0)
    assert made.view("gpu1", 2.0).health.state is State.HEALTHY


def test_a_poll_forgets_the_options_of_what_is_gone() -> None:
    """But not those of a model that is being loaded, which no poll shows."""
    made = fleet(slots=3)
    made.lease("gpu1", TEXT, LARGE_CONTEXT, 0.0, cold=True)
    made.lease("gpu1", OTHER, SMALL_CONTEXT, 0.0, cold=False)
    made.observe("gpu1", observation(1.0))
    assert made.view("gpu1", 1.0).runners == {DIGEST: LARGE_CONTEXT}


# -- forgetting ---------------------------------------------------------------------------------------------------------------------


def test_a_ghost_is_forgotten_until_the_next_inventory() -> None:
    """A host that says 404 for a model it listed is believed."""
    made = fleet()
    made.forget_model("gpu1", TEXT)
    made.forget_model("gpu1", "nope:latest")
    assert set(made.view("gpu1", 0.0).available or ()) == {OTHER}
    made.observe("gpu1", observation(1.0))
    assert set(made.view("gpu1", 1.0).available or ()) == {TEXT, OTHER}


def test_what_was_unloaded_on_our_word() -> None:
    """It is not waited for the next poll to say so."""
    made = fleet(holds=[TEXT, OTHER])
    made.forget_loaded("gpu1", TEXT, 5.0)
    made.forget_loaded("gpu1", "nope:latest", 5.0)
    assert list(made.view("gpu1", 0.0).loaded) == [digest_of(OTHER)]


# -- learning -----------------------------------------------------------------------------------------------------------------------


def test_learning() -> None:
    """What an answer showed is kept by model; how long a lease was held, by host."""
    made = fleet()
    lease = made.lease("gpu1", TEXT, (), 0.0, cold=True)
    made.learn(lease, 8.0, told(2.0, 50.0))
    view = made.view("gpu1", 8.0)
    assert view.service_seconds == 8.0
    assert view.estimates == {DIGEST: Estimate(2.0, None, 50.0)}
    made.learn(lease, 4.0, told())
    assert made.view("gpu1", 8.0).service_seconds == pytest.approx(6.8)
    assert made.view("gpu1", 8.0).estimates == {DIGEST: Estimate(2.0, None, 50.0)}


def test_enough_is_learned() -> None:
    """More than so many samples a second teach nothing."""
    made = fleet()
    times = [index / 1000 for index in range(1000)]
    assert sum(made.wants_sample("gpu1", 7.0 + now) for now in times) <= SAMPLES_PER_SECOND
    assert made.wants_sample("gpu1", 9.0)


def test_a_prompt_that_is_known_tells_no_speed() -> None:
    """The host counts what it had in its cache as well; nor does an evaluation too short to be one."""
    made = fleet(holds=[TEXT])
    first = made.lease("gpu1", TEXT, (), 0.0, cold=False, prefix=(1, 2))
    again = made.lease("gpu1", TEXT, (), 0.0, cold=False, prefix=(1, 2, 3))
    assert (first.known, again.known) == (False, True)
    made.learn(again, 1.0, told(prefill_rate=1000.0))
    made.learn(first, 1.0, told(prefill_rate=1e6))
    assert made.view("gpu1", 0.0).estimates[DIGEST].prefill_rate is None
    made.learn(first, 1.0, told(prefill_rate=1000.0))
    assert made.view("gpu1", 0.0).estimates[DIGEST].prefill_rate == 1000.0


def test_a_load_tells_the_pace_of_others() -> None:
    """Bytes per second of the model on disk: the guess for models that were never loaded there."""
    made = fleet()
    lease = made.lease("gpu1", TEXT, (), 0.0, cold=True)
    made.learn(lease, 5.0, told(4.0))
    assert made.view("gpu1", 0.0).load_rate == SIZE / 4.0
    made.learn(made.lease("gpu1", TEXT, (), 0.0, cold=False), 5.0, told(4.0))
    assert made.view("gpu1", 0.0).load_rate == SIZE / 4.0, "it was loaded already: those seconds are no load"


def test_how_long_a_lease_should_last() -> None:
    """The end that was predicted is there as long as the lease is."""
    made = fleet(slots=2)
    one = made.lease("gpu1", TEXT, (), 1.0, cold=False, seconds=4.0)
    two = made.lease("gpu1", TEXT, (), 2.0, cold=False, seconds=9.0)
    assert made.view("gpu1", 2.0).ends == (5.0, 11.0)
    made.release(one)
    assert made.view("gpu1", 2.0).ends == (11.0,)
    made.release(two)
    assert made.view("gpu1", 2.0).ends == ()


def test_what_prompts_a_host_knows() -> None:
    """As many as its model has slots; a load empties them, and so does what takes the model out of memory."""
    made = fleet(slots=2, holds=[TEXT])
    for number in range(3):
        made.lease("gpu1", TEXT, (), 0.0, cold=False, prefix=(number,))
    assert made.view("gpu1", 0.0).prompts == {DIGEST: (Known((1,), 0.0), Known((2,), 0.0))}
    made.lease("gpu1", TEXT, LARGE_CONTEXT, 0.0, cold=True, prefix=(7,))
    assert made.view("gpu1", 0.0).prompts == {DIGEST: (Known((7,), 0.0),)}
    made.observe("gpu1", observation(1.0, holds=[OTHER]))
    assert made.view("gpu1", 1.0).prompts == {DIGEST: (Known((7,), 0.0),)}, "it is being loaded"
    made = fleet(holds=[TEXT])
    made.lease("gpu1", TEXT, (), 0.0, cold=False, prefix=(1,))
    made.observe("gpu1", observation(1.0, holds=[OTHER]))
    assert made.view("gpu1", 1.0).prompts == {}


def test_the_most_that_was_seen_in_memory() -> None:
    """Bytes and models: what a host can hold at once, as far as anybody knows."""
    made = fleet(holds=[TEXT, OTHER])
    made.observe("gpu1", observation(1.0, holds=[TEXT]))
    view = made.view("gpu1", 1.0)
    assert (view.vram_seen, view.models_seen) == (2 * SIZE, 2)
    assert made.snapshot(1.0).sizes == {DIGEST: SIZE, digest_of(OTHER): SIZE}


def test_how_many_models_a_host_keeps() -> None:
    """Found out by one that has to leave for another though there is memory; more that are seen at once are right; and a restart forgets it not."""
    made = Fleet([host(vram_bytes=8 * SIZE)])
    held = (loaded(TEXT, expires_at=LONG),)
    made.observe("gpu1", msgspec.structs.replace(observation(0.0), loaded=held))
    assert made.view("gpu1", 0.0).models_most == 0
    lease = made.lease("gpu1", OTHER, (), 1.0, cold=True)
    assert made.view("gpu1", 1.0).leaving == frozenset()
    made.observe("gpu1", observation(2.0, holds=[]))
    assert made.view("gpu1", 2.0).models_most == 1, "and that is being loaded"
    made.answered(lease, OTHER, 3.0)
    made.observe("gpu1", observation(4.0, holds=[OTHER]))
    assert room_for(made.view("gpu1", 4.0), DIGEST, SIZE).share == 1.0
    made.lease("gpu1", TEXT, (), 5.0, cold=True)
    assert made.view("gpu1", 5.0).leaving == {digest_of(OTHER)}
    again = Fleet([host(vram_bytes=8 * SIZE)])
    again.recall(made.memory.new())
    assert again.view("gpu1", 5.0).models_most == 1
    made.observe("gpu1", observation(6.0, holds=[TEXT, OTHER]))
    assert made.view("gpu1", 6.0).models_most == 2


@pytest.mark.parametrize(
    ("vram", "expires_at"), [(2.4, ""), (8.0, "2026-01-01T00:00:00Z")], ids=["hardly any memory", "its time was up"]
)
def test_what_leaves_for_another_reason(vram: float, expires_at: str) -> None:
    """Tells nothing of how many are kept."""
    made = Fleet([host(vram_bytes=int(vram * SIZE))])
    held = (loaded(TEXT, expires_at=expires_at),)
    made.observe("gpu1", msgspec.structs.replace(observation(0.0), loaded=held))
    made.answered(made.lease("gpu1", OTHER, (), 1.0, cold=True), OTHER, 3.0)
    seen = msgspec.structs.replace(observation(4.0, holds=[OTHER]), wall=1_800_000_000.0)
    made.observe("gpu1", seen)
    assert made.view("gpu1", 4.0).models_most == 0


def test_a_poll_that_began_before_a_load_was_given_up() -> None:
    """Shows nothing of what had to make room for that load, though another is under way when it comes: it stays gone until a later poll."""
    small = host(slots=3, vram_bytes=2 * SIZE)
    made = Fleet([small])
    made.observe("gpu1", observation(0.0, has=[TEXT, OTHER, "c:latest"], holds=[TEXT, OTHER]))
    made.lease("gpu1", OTHER, (), 1.0, cold=False)
    late = observation(1.5, has=None, holds=[TEXT, OTHER])
    made.release(made.lease("gpu1", "c:latest", (), 2.0, cold=True), 2.5)
    assert made.view("gpu1", 2.5).leaving == {DIGEST}
    again = made.lease("gpu1", TEXT, (), 3.0, cold=True)
    made.observe("gpu1", msgspec.structs.replace(late, at=3.5))
    made.release(again, 4.0)
    assert made.view("gpu1", 4.0).leaving == {DIGEST}
    made.observe("gpu1", observation(5.0, has=None, holds=[TEXT, OTHER]))
    assert made.view("gpu1", 5.0).leaving == frozenset()


def test_what_was_in_use_when_a_load_was_given_up() -> None:
    """Leaves for it all the same, as soon as nobody uses it: it counts as gone from then on, until a poll shows that it stayed."""
    made = Fleet([host(slots=3, vram_bytes=2 * SIZE)])
    made.observe("gpu1", observation(0.0, has=[TEXT, OTHER, "c:latest"], holds=[TEXT, OTHER]))
    uses = [made.lease("gpu1", model, (), 1.0, cold=False) for model in (TEXT, OTHER)]
    made.release(made.lease("gpu1", "c:latest", (), 2.0, cold=True), 2.5)
    made.observe("gpu1", observation(3.0, has=None, holds=[TEXT, OTHER]))
    assert made.view("gpu1", 3.0).leaving == frozenset()
    made.release(uses[0], 4.0)
    made.observe("gpu1", msgspec.structs.replace(observation(3.9, has=None, holds=[TEXT, OTHER]), at=4.1))
    assert made.view("gpu1", 4.1).leaving == {DIGEST}
    made.observe("gpu1", observation(5.0, has=None, holds=[TEXT, OTHER]))
    assert made.view("gpu1", 5.0).leaving == frozenset()


def test_a_load_anew_that_is_given_up() -> None:
    """Is over, though a request that the model was loaded for before is being answered still."""
    made = fleet(slots=3)
    first = made.lease("gpu1", TEXT, (), 0.0, cold=True)
    made.answered(first, TEXT, 1.0)
    anew = made.lease("gpu1", TEXT, (("num_ctx", 8192),), 2.0, cold=False)
    assert anew.cold
    joined = made.lease("gpu1", TEXT, (("num_ctx", 8192),), 2.5, cold=False)
    made.release(anew, 3.0)
    assert made.is_loading("gpu1"), "for another"
    made.release(joined, 3.5)
    assert not made.is_loading("gpu1")


def test_a_model_that_its_caller_had_unloaded() -> None:
    """By ``keep_alive`` 0 of a prompt, which only the host reads: that another came since tells nothing of how many are kept."""
    made = Fleet([host(vram_bytes=8 * SIZE)])
    made.observe("gpu1", msgspec.structs.replace(observation(0.0), loaded=(loaded(expires_at=LONG),)))
    for model, now in ((TEXT, 1.0), (OTHER, 2.0)):
        lease = made.lease("gpu1", model, (), now, cold=model == OTHER)
        made.answered(lease, model, now + 0.1)
        made.release(lease, now + 0.2)
    made.observe("gpu1", observation(4.0, holds=[OTHER]))
    assert made.view("gpu1", 4.0).models_most == 0


def test_models_that_use_no_memory_of_a_gpu() -> None:
    """Tell nothing of how much there would be."""
    made = Fleet([host()])
    one, other = (msgspec.structs.replace(loaded(model, expires_at=LONG), vram=0) for model in (TEXT, OTHER))
    made.observe("gpu1", msgspec.structs.replace(observation(0.0), loaded=(one,)))
    lease = made.lease("gpu1", OTHER, (), 1.0, cold=True)
    made.answered(lease, OTHER, 2.0)
    made.observe("gpu1", msgspec.structs.replace(observation(3.0), loaded=(other,)))
    assert made.view("gpu1", 3.0).models_most == 0


# -- draining -----------------------------------------------------------------------------------------------------------------------


def test_a_drain_outlasts_its_host() -> None:
    """A discovered host that was gone, or has moved, is back as it was left, until somebody resumes it."""
    made = Fleet([host("gpu1"), host("gpu2")])
    made.drain(frozenset({"gpu1"}))
    made.configure([host("gpu2")])
    made.configure([host("gpu2"), host("gpu1")])
    assert [view.draining for view in made.snapshot(0.0).hosts] == [False, True]
    made.drain(frozenset())
    made.configure([])
    made.configure([host("gpu1")])
    assert not made.view("gpu1", 0.0).draining
