"""Scorers: what would this host cost this request, in seconds? Unknown is not free: the fleet's average or a stated default.

``docs/routing.md`` explains each with its formula.
"""

from gateway.dialects.request import InferenceRequest
from gateway.fleet.ewma import Estimate
from gateway.fleet.host import FleetSnapshot, HostView, LoadedModel, RunnerOptions
from gateway.record import Costs

DEFAULT_SERVICE_SECONDS = 10.0
DEFAULT_LOAD_RATE = 1e9  # bytes per second from disk
DEFAULT_LOAD_BASE_SECONDS = 2.0  # runner start, before the first byte is read
DEFAULT_PREFILL_RATE = 500.0  # tokens per second
PENALTY_SECONDS = 5.0  # for one fresh failure
PENALTY_HALF_LIFE_SECONDS = 30.0
_UNMEASURED = Estimate()


class Averages:
    """What the hosts of a snapshot have measured, on average. Each is worked out once, when first asked for."""

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self._hosts = snapshot.hosts
        self._service: float | None = None
        self._load: dict[str, float | None] = {}
        self._prefill: dict[str, float] = {}

    def service_seconds(self) -> float:
        """How long a lease is held; the default if no host has measured it."""
        if self._service is None:
            self._service = _mean([host.service_seconds for host in self._hosts]) or DEFAULT_SERVICE_SECONDS
        return self._service

    def load_seconds(self, digest: str) -> float | None:
        """How long this model takes to load; None if no host has measured it."""
        if digest not in self._load:
            self._load[digest] = _mean([estimate.load_seconds for estimate in self._estimates(digest)])
        return self._load[digest]

    def prefill_rate(self, digest: str) -> float:
        """Prompt tokens per second; the default if no host has measured it."""
        if digest not in self._prefill:
            rates = [estimate.prefill_rate for estimate in self._estimates(digest)]
            self._prefill[digest] = _mean(rates) or DEFAULT_PREFILL_RATE
        return self._prefill[digest]

    def _estimates(self, digest: str) -> list[Estimate]:
        return [host.estimates.get(digest, _UNMEASURED) for host in self._hosts]


def costs(request: InferenceRequest, view: HostView, snapshot: FleetSnapshot, averages: Averages, ahead: int) -> Costs:
    """The whole prediction for one host. ``averages`` are the snapshot's; ``ahead``: requests that wait for this host before this one."""
    digest = view.digest_of(request.model)
    wait = queue_wait(view, averages, ahead) if view.leases + view.elsewhere + ahead >= view.host.slots else 0.0
    load = load_time(request, view, snapshot.taken_at, averages, digest)
    prefill = cached = 0.0
    if request.prompt_tokens:
        rate = prefill_rate(view, averages, digest)
        prefill = request.prompt_tokens / rate
        if request.prefix and load == 0.0:
            cached = affinity(request, view, snapshot, rate)
    fault = penalty(view, snapshot.taken_at) if view.health.attempt_failures or view.health.poll_failures else 0.0
    return Costs(view.host.name, wait + load + prefill + cached + fault, wait, load, prefill, cached, fault)


def queue_wait(view: HostView, averages: Averages, ahead: int) -> float:
    """Leases (other gateways' too) and waiters beyond the slots × how long a lease is held here, ÷ slots."""
    slots = view.host.slots
    beyond = view.leases + view.elsewhere + ahead - slots + 1
    if beyond <= 0:
        return 0.0
    return beyond * (view.service_seconds or averages.service_seconds()) / slots


def load_time(request: InferenceRequest, view: HostView, now: float, averages: Averages, digest: str | None) -> float:
    """0 when a runner that fits is loaded; what is left of a load under way; else the learned or estimated load."""
    if digest is None:
        return DEFAULT_LOAD_BASE_SECONDS
    loaded, since = view.loaded.get(digest), view.loading.get(digest)
    if loaded is not None and since is None and fits(request.runner_options, view.runners.get(digest), loaded):
        return 0.0
    seconds = view.estimates.get(digest, _UNMEASURED).load_seconds
    if seconds is None:
        seconds = averages.load_seconds(digest)
    if seconds is None:
        size = view.available[request.model].size if view.available and request.model in view.available else 0
        seconds = DEFAULT_LOAD_BASE_SECONDS + size / DEFAULT_LOAD_RATE
    if since is not None and view.runners.get(digest) == request.runner_options:
        return max(0.0, seconds - (now - since))
    return seconds


def fits(wanted: RunnerOptions, sent: RunnerOptions | None, loaded: LoadedModel) -> bool:
    """Would Ollama serve ``wanted`` without a reload? ``sent``: the options last sent for this runner, None if not by us."""
    if wanted == sent or (not wanted and not sent):
        return True
    asked, had = dict(wanted), dict(sent or ())
    context = asked.pop("num_ctx", None)
    had_context = had.pop("num_ctx", None)
    if asked != had:
        return False
    return context == loaded.context if context is not None else had_context is None


def prefill_rate(view: HostView, averages: Averages, digest: str | None) -> float:
    """Prompt tokens per second."""
    if digest is None:
        return DEFAULT_PREFILL_RATE
    return view.estimates.get(digest, _UNMEASURED).prefill_rate or averages.prefill_rate(digest)


def affinity(request: InferenceRequest, view: HostView, snapshot: FleetSnapshot, rate: float) -> float:
    """Minus the prefill that this host's prompt cache saves."""
    held = snapshot.affinity.get(request.prefix)
    if held is None or held[0] != view.host.name:
        return 0.0
    return -min(held[1], request.prompt_tokens) / rate


def penalty(view: HostView, now: float) -> float:
    """Recent failures, halved every PENALTY_HALF_LIFE_SECONDS: a failure is never a fast sample."""
    failures = view.health.attempt_failures + view.health.poll_failures
    if not failures:
        return 0.0
    age = max(0.0, now - view.health.failed_at)
    return float(PENALTY_SECONDS * failures * 0.5 ** (age / PENALTY_HALF_LIFE_SECONDS))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
