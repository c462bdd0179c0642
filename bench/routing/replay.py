"""A trace through Corral's own fleet, waiting room and policy, in virtual time: what relay.py does, without the sockets."""

import random
from functools import partial
from typing import NamedTuple

from bench.routing.agenda import Agenda
from bench.routing.host import Job, VirtualHost
from bench.routing.trace import Ask, Scenario
from bench.routing.world import CONTEXT, Model, Place
from gateway.dialects.endpoints import ENDPOINTS
from gateway.dialects.request import InferenceRequest, Kind
from gateway.fleet.health import Event
from gateway.fleet.host import AvailableModel, Host, LoadedModel, Observation
from gateway.fleet.registry import Fleet
from gateway.record import Usage
from gateway.routing.admission import NOBODY, Admission, Grant, Verdict
from gateway.routing.policy import Chance
from gateway.routing.ranks import Policy

POLL_SECONDS = 2.0
RETURN_SECONDS = 1.0  # from a host's return to the poll that sees it
ATTEMPTS = 3
SEED = 7
EVERYBODY = 10**9  # the waiting room refuses nobody: every policy serves the whole trace


class Answered(NamedTuple):
    """What became of one request. Seconds from its arrival; ``first`` and ``last`` None where it failed."""

    ask: Ask
    host: str
    first: float | None
    last: float | None
    predicted: float
    cold: bool


class Replayed(NamedTuple):
    """One run."""

    scenario: Scenario
    policy: str
    answers: tuple[Answered, ...]
    loads: int
    reloads: int
    loading_seconds: float
    lost_seconds: float
    end: float


class Replay:
    """One scenario under one policy. ``finds``: how many requests hosts run at once is found from answers."""

    finds = True

    def __init__(self, scenario: Scenario, policy: Policy, chance: Chance | None = None) -> None:
        self.scenario = scenario
        self.policy = policy
        self._agenda = Agenda()
        self._hosts = {place.name: VirtualHost(place, self._agenda) for place in scenario.places}
        for number, host in enumerate(self._hosts.values()):
            host.hold(scenario.held(number))
        self._models = {ask.model.name: ask.model for ask in scenario.asks}
        self._by_host = {
            place.name: {model.name: model for model in self._models.values() if place.fits(model)}
            for place in scenario.places
        }
        self._digests = {name: f"digest-{name}" for name in self._models}
        told = [place.slots if place.told is None else place.told for place in scenario.places]
        hosts = zip(scenario.places, told, strict=True)
        self.fleet = Fleet([Host(place.name, f"http://{place.name}", slots) for place, slots in hosts])
        self.admission = Admission(self.fleet, EVERYBODY, chance or random.Random(SEED), policy)
        self._answers: list[Answered] = []
        self._last = scenario.asks[-1].at

    def run(self) -> Replayed:
        """Everything, to the end."""
        for place in self.scenario.places:
            self._poll(place.name)
            if place.down is not None:
                down, up = place.down
                self._agenda.at(down, partial(self._dies, place.name))
                self._agenda.at(up, partial(self._returns, place.name))
        for ask in self.scenario.asks:
            self._agenda.at(ask.at, partial(self._asks, ask))
        self._agenda.run()
        hosts = self._hosts.values()
        return Replayed(
            self.scenario,
            self.policy.value,
            tuple(sorted(self._answers)),
            sum(host.loads for host in hosts),
            sum(host.reloads for host in hosts),
            sum(host.loading_seconds for host in hosts),
            sum(host.lost_seconds for host in hosts),
            max((answer.ask.at + (answer.last or 0.0) for answer in self._answers), default=0.0),
        )

    # -- hosts -----------------------------------------------------------------------------------------------------------------

    def _poll(self, name: str) -> None:
        now, host = self._agenda.now, self._hosts[name]
        if host.alive:
            loaded = [self._loaded(runner.model, runner.context, runner.memory) for runner in host.runners.values()]
            has = [self._available(model) for model in self._by_host[name].values()]
            self.fleet.observe(name, Observation(now, "0.33.0", 0.001, tuple(loaded), tuple(has), now, now))
            self.admission.assign(now)
        if now < self._last or len(self._answers) < len(self.scenario.asks):
            self._agenda.at(now + POLL_SECONDS, lambda: self._poll(name))

    def _loaded(self, model: Model, context: int, memory: int) -> LoadedModel:
        return LoadedModel(model.name, self._digests[model.name], memory, memory, context, "", {})

    def _available(self, model: Model) -> AvailableModel:
        return AvailableModel(model.name, self._digests[model.name], int(model.size), {})

    def _dies(self, name: str) -> None:
        self._hosts[name].die()
        self.fleet.note(name, Event.UNREACHABLE, self._agenda.now, "connection refused")
        self.admission.assign(self._agenda.now)

    def _returns(self, name: str) -> None:
        self._hosts[name].alive = True

    # -- requests --------------------------------------------------------------------------------------------------------------

    def _read(self, ask: Ask) -> InferenceRequest:
        options = () if ask.context == CONTEXT else (("num_ctx", ask.context),)
        return InferenceRequest(
            id=str(ask.number),
            endpoint=ENDPOINTS["/api/chat"],
            kind=Kind.INFER,
            requested_model=ask.model.name,
            model=ask.model.name,
            stream=True,
            runner_options=options,
            prompt_tokens=ask.prompt_tokens,
            prefix=ask.chain,
            body=b"",
            client=ask.principal,
        )

    def _asks(self, ask: Ask) -> None:
        self._arrives(ask, self._read(ask), NOBODY)

    def _arrives(self, ask: Ask, request: InferenceRequest, tried: frozenset[str]) -> None:
        def deliver(verdict: Verdict) -> bool:
            self._granted(ask, request, tried, verdict)
            return True

        verdict = self.admission.grant(request, self._agenda.now, tried)
        if verdict is None:
            self.admission.join(request, self._agenda.now, deliver, tried)
        else:
            deliver(verdict)

    def _granted(self, ask: Ask, request: InferenceRequest, tried: frozenset[str], verdict: Verdict) -> None:
        if not isinstance(verdict, Grant):
            self._answers.append(Answered(ask, "", None, None, 0.0, cold=False))
            return
        lease, route = verdict.lease, verdict.route
        firsts: list[float] = []

        def first(_: Job) -> None:
            firsts.append(self._agenda.now)
            self.admission.answered(lease, request.model, self._agenda.now)

        def over(job: Job, whole: bool) -> None:
            now = self._agenda.now
            if whole:
                if self.finds:
                    self.fleet.ran(lease, self._usage(job, now))
                if self.fleet.wants_sample(lease.host, now):
                    self.fleet.learn(lease, now - lease.since, self._usage(job, now))
            self.admission.release(lease, now)
            if whole or firsts or len(tried) + 1 >= ATTEMPTS:
                last = now - ask.at if whole else None
                began = firsts[0] - ask.at if firsts else None
                self._answers.append(Answered(ask, lease.host, began, last, route.predicted_seconds, lease.cold))
            else:
                self._arrives(ask, request, tried | {lease.host})

        self._hosts[lease.host].take(Job(ask, first, over))

    def _usage(self, job: Job, now: float) -> Usage:
        return Usage(
            input_tokens=job.ask.prompt_tokens,
            output_tokens=job.ask.output_tokens,
            load_seconds=job.load_seconds,
            prefill_seconds=job.prefill_seconds,
            decode_seconds=job.decode_seconds,
            total_seconds=now - job.came,
        )


def places_that_fit(scenario: Scenario, model: Model) -> list[Place]:
    """Where a model can run."""
    return [place for place in scenario.places if place.fits(model)]
