"""Scorers: what would this host cost this request, in seconds? Unknown is not free: the fleet's average or a stated default.

``docs/routing.md`` explains each with its formula.
"""

from typing import Final, NamedTuple

from gateway.dialects.request import BLOCK_TOKENS, InferenceRequest, Kind
from gateway.fleet.host import AvailableModel, LoadedModel, RunnerOptions
from gateway.fleet.prompts import best, missed
from gateway.fleet.regret import DEFAULT_LOAD_BASE_SECONDS, default_load_seconds
from gateway.fleet.regret import load_seconds as measured_load
from gateway.fleet.runners import differences, left_to_ollama
from gateway.fleet.snapshot import HostView
from gateway.record import Costs
from gateway.routing.averages import (
    DEFAULT_DECODE_RATE,
    DEFAULT_OUTPUT_TOKENS,
    DEFAULT_PREFILL_RATE,
    UNMEASURED,
    Averages,
)
from gateway.routing.eviction import harm

PENALTY_SECONDS: Final = 5.0  # for one fresh failure
PENALTY_HALF_LIFE_SECONDS: Final = 30.0
DECODE_SHARE: Final = 0.25  # a second after the first token is a quarter as long as one before it
HARM_SHARE: Final = 0.5  # others' seconds are those of requests that may never come, or find another host
MEMO_LIMIT: Final = 64  # models and runner options that are remembered of a host, until it changes
# of the seconds for which a lease is held there: one that should be over has at least so many left
OVERDUE: Final = 0.25


class Price(NamedTuple):
    """Whether a runner that fits is there; seconds of a load, those of them by which hosts do not compare, and what others pay for it; tokens per second
    as measured there (0: not yet)."""

    warm: bool
    load: float
    left: float
    harm: float
    prefill_rate: float
    decode_rate: float


Quote = tuple[float, float, float, float, float, float, float, float, float]
"""The numbers of ``Costs``, in their order."""


def costs(request: InferenceRequest, view: HostView, averages: Averages, ahead: int) -> Costs:
    """The whole prediction for one host. ``averages`` are its snapshot's; ``ahead``: requests that wait for this host before this one."""
    total, wait, load, prefill, cached, fault, evicting, slow, held = quote(request, view, averages, ahead)
    return Costs(view.name, total, wait, load, prefill, cached, fault, evicting, slow, held)


def quote(request: InferenceRequest, view: HostView, averages: Averages, ahead: int) -> Quote:
    """``costs`` without anything made of them: a fleet has far more hosts than anybody reads about."""
    snapshot = averages.snapshot
    now = snapshot.taken_at
    row = view.available.get(request.model) if view.available else None
    if row is None:
        return _blindly(request, view, averages, ahead)
    digest, slots = row.digest, view.slots
    at_once, until = slots, None
    if view.parallel:  # else nothing is crowded
        at_once = view.parallel.get(digest, slots)
        slots = max(slots, at_once)
        until = view.crowded.get(digest)
    key = (request.model, request.runner_options)
    price: Price | None = view.memo.get(key)
    if price is None:
        price = _price(request, view, row, averages)
        own = price.load == 0.0 or measured_load(digest, row.size, view.estimates, view.load_rate) is not None
        if (
            own and not view.loading and len(view.memo) < MEMO_LIMIT
        ):  # what others measure changes, and a load gets shorter
            view.memo[key] = price
    warm, load, left, evicting, prefill_rate, decode_rate = price
    taken = view.leases + view.elsewhere
    wait = prefill = cached = 0.0
    if taken >= slots or (ahead and not warm and taken + ahead >= slots):
        # who waits for a host with a free slot waits for it to load, and is in the way of those only who need a load too
        wait = queue_wait(view, averages, ahead, now, slots)
    if until is not None:
        wait = max(wait, crowd_wait(until, view, averages, ahead, now))
    if load > 0.0 and view.loading and digest not in view.loading:
        wait = max(wait, load_under_way(view, averages, now))
    tokens = request.prompt_tokens
    if tokens:
        rate = prefill_rate or averages.prefill_rate(digest)
        prefill = tokens / rate
        if load == 0.0 and (known := view.prompts.get(digest)):
            blocks = best(known, request.prefix) if request.prefix else 0
            if blocks:
                cached = -min(blocks * BLOCK_TOKENS, tokens) / rate
            else:
                evicting = missed(known, at_once, now) * BLOCK_TOKENS / rate
    answer = 0.0
    if (tokens or request.kind is Kind.INFER) and not request.embeds:  # else it only loads
        answer = averages.output_tokens(digest) / (decode_rate or averages.decode_rate(digest))
    fault = penalty(view, now) if view.failures else 0.0
    slow, evicting = DECODE_SHARE * answer, HARM_SHARE * evicting
    total = wait + load - left + prefill + cached + fault + evicting + slow
    held = load + prefill + cached + answer
    return total, wait, load, prefill, cached, fault, evicting, slow, held


def _price(request: InferenceRequest, view: HostView, row: AvailableModel, averages: Averages) -> Price:
    """What does not depend on the prompt, nor on who else waits."""
    digest, snapshot = row.digest, averages.snapshot
    estimate = view.estimates.get(digest, UNMEASURED)
    loaded = view.loaded.get(digest) if digest not in view.leaving else None
    warm = (
        loaded is not None
        and digest not in view.loading
        and fits(request.runner_options, view.runners.get(digest), loaded)
    )
    load = left = evicting = 0.0
    if not warm:
        load = load_time(request.runner_options, view, digest, row.size, averages, snapshot.taken_at)
        if loaded is not None and left_to_ollama(request.model, snapshot.reloads):
            left = load  # it is foretold, but no reason to go elsewhere
        elif load > 0.0 and digest not in view.loading:
            evicting = harm(view, digest, snapshot.sizes.get(digest, row.size))
    return Price(warm, load, left, evicting, estimate.prefill_rate or 0.0, estimate.decode_rate or 0.0)


def _blindly(request: InferenceRequest, view: HostView, averages: Averages, ahead: int) -> Quote:
    """For a host that has not told its models: what is known of it, and defaults."""
    now = averages.snapshot.taken_at
    wait = queue_wait(view, averages, ahead, now, view.slots)
    prefill = request.prompt_tokens / DEFAULT_PREFILL_RATE
    answer = DEFAULT_OUTPUT_TOKENS / DEFAULT_DECODE_RATE if request.kind is Kind.INFER and not request.embeds else 0.0
    load, fault, slow = DEFAULT_LOAD_BASE_SECONDS, penalty(view, now), DECODE_SHARE * answer
    total, held = wait + load + prefill + fault + slow, load + prefill + answer
    return total, wait, load, prefill, 0.0, fault, 0.0, slow, held


def queue_wait(view: HostView, averages: Averages, ahead: int, now: float, slots: int) -> float:
    """Until a slot is free: the lease that should end first, then those who wait ahead, each for as long as a lease is held here, ÷ slots.

    Leases of other gateways and of unknown length count as long as a lease is held here.
    """
    beyond = view.leases + view.elsewhere + ahead - slots + 1
    if beyond <= 0:
        return 0.0
    service = view.service_seconds or averages.service_seconds()
    if not view.ends or view.elsewhere:
        return beyond * service / slots
    return _left(min(view.ends), service, now) + (beyond - 1) * service / slots


def crowd_wait(until: float, view: HostView, averages: Averages, ahead: int, now: float) -> float:
    """Where slots are free, but as many requests for the model are out as the host runs at once: until the first of these ends, who waits ahead as ever."""
    service = view.service_seconds or averages.service_seconds()
    return (_left(until, service, now) if until else service) + ahead * service / view.slots


def _left(until: float, service: float, now: float) -> float:
    """Of a lease. The longer it is overdue, the longer it may yet be."""
    left = until - now
    return left if left >= OVERDUE * service else max(OVERDUE * service, -left)


def load_time(options: RunnerOptions, view: HostView, digest: str, size: int, averages: Averages, now: float) -> float:
    """What is left of a load under way with these options; else the learned or estimated load. For who is not warm there."""
    seconds = load_seconds(view, digest, size, averages)
    since = view.loading.get(digest)
    if since is not None and view.runners.get(digest) == options:
        return max(0.0, seconds - (now - since))
    return seconds


def load_seconds(view: HostView, digest: str, size: int, averages: Averages) -> float:
    """A load from nothing: as measured there, or at the host's pace for other models, or as it took elsewhere, or at others' pace, or the default."""
    seconds = measured_load(digest, size, view.estimates, view.load_rate)
    if seconds is None:
        seconds = averages.load_seconds(digest)
    if seconds is None and size and (pace := averages.load_rate()):
        seconds = DEFAULT_LOAD_BASE_SECONDS + size / pace
    return default_load_seconds(size) if seconds is None else seconds


def load_under_way(view: HostView, averages: Averages, now: float) -> float:
    """Until the host has loaded what it is loading: one load at a time."""
    return max([load_seconds(view, digest, 0, averages) - (now - since) for digest, since in view.loading.items()])


def fits(wanted: RunnerOptions, sent: RunnerOptions | None, loaded: LoadedModel) -> bool:
    """Would Ollama serve ``wanted`` without a reload? ``sent``: the options last sent for this runner, None if not by us."""
    if wanted == sent or (not wanted and not sent):
        return True
    return not differences(wanted, sent, loaded)


def penalty(view: HostView, now: float) -> float:
    """Recent failures, halved every PENALTY_HALF_LIFE_SECONDS: a failure is never a fast sample."""
    if not view.failures:
        return 0.0
    age = max(0.0, now - view.health.failed_at)
    return float(PENALTY_SECONDS * view.failures * 0.5 ** (age / PENALTY_HALF_LIFE_SECONDS))
