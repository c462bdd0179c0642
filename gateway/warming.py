"""Keeps models in hosts' memory: does what fleet/keeps.py says, and tells how it stands. One look for each interval of polls, one load at a time on a host.

A load is an empty request of our own, which holds a slot and counts as a load under way, so that routing knows; it is no demand. A host is asked again
in vain ever less often, up to once in ten minutes; so it is where a model does not stay, as what is to be kept does not fit together.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.config import Config
from gateway.dialects.names import canonical
from gateway.fleet.client import HostAnswer, HostClient, HostError
from gateway.fleet.keeps import SETTLED_SECONDS, UNTRIED, Keep, KeepKind, KeepState, Planner, Tried, Wish
from gateway.fleet.registry import Fleet
from gateway.fleet.residence import Trigger
from gateway.fleet.snapshot import HostView
from gateway.routing.admission import Admission
from gateway.tasks import Tasks, pause, supervise
from gateway.telemetry.metrics import Metrics

LOAD_SECONDS = 900.0  # Ollama gives up by itself where nothing moves for five minutes
QUICK_SECONDS = 0.25  # who answers sooner had it loaded already
FOREVER = -1  # keep_alive
EMBEDS_ONLY = "does not support generate"

log = logging.getLogger(__name__)


class Warming:
    """``run`` as a task. ``config``: the one in force; ``tasks`` own the loads."""

    def __init__(
        self,
        fleet: Fleet,
        admission: Admission,
        client: HostClient,
        metrics: Metrics,
        clock: Callable[[], float],
        config: Callable[[], Config],
        tasks: Tasks,
    ) -> None:
        self._fleet, self._admission, self._client = fleet, admission, client
        self._metrics, self._clock, self._config, self._tasks = metrics, clock, config, tasks
        self.keeps: dict[str, list[Keep]] = {}  # by host, as of the last look
        self._tried: dict[tuple[str, str], Tried] = {}
        self._loading: set[str] = set()  # hosts

    def kept(self, host: str) -> list[Keep]:
        """What is to be in a host's memory, and how that stood at the last look."""
        return self.keeps.get(host, [])

    async def run(self) -> None:
        """For ever."""
        await supervise("keeping models in memory", self.step, self._rest)

    async def _rest(self) -> None:
        await pause(self._config().poll.interval_seconds)

    async def step(self) -> None:
        """Look once, and begin what is due."""
        config, now = self._config(), self._clock()
        if not (config.pin or config.warm or self.keeps):
            return
        pins = pinned(config.pin)
        self._fleet.pin(pins)
        waiting = {(waiter.request.model, waiter.request.pin) for waiter in self._admission.waiting()}
        demand = self._fleet.learned.demand
        planner = Planner(self._fleet.snapshot(now), waiting, self._tried, demand, time.time())
        wishes = planner.plan(pins, config.warm)
        self.keeps = defaultdict(list)
        for wish in wishes:
            self.keeps[wish.view.name].append(wish.keep)
        self._forget(wishes, now)
        for wish in wishes:
            if wish.keep.state in (KeepState.DUE, KeepState.RENEWED) and wish.view.name not in self._loading:
                self._loading.add(wish.view.name)
                self._tasks.spawn(f"{wish.keep.model} on {wish.view.name}", self._load(wish))

    def _forget(self, wishes: list[Wish], now: float) -> None:
        """What has stayed, and what nobody wishes any more, has no past."""
        unsettled = {
            (wish.view.name, wish.keep.model)
            for wish in wishes
            if wish.keep.state is not KeepState.LOADED
            or now < self._tried.get((wish.view.name, wish.keep.model), UNTRIED).at + SETTLED_SECONDS
        }
        self._tried = {place: tried for place, tried in self._tried.items() if place in unsettled}

    async def _load(self, wish: Wish) -> None:
        view, keep = wish
        try:
            if view.name in self._fleet.names:  # it may have gone since the look
                why = await self._sent(view, keep)
                self._tell(wish, why)
        finally:
            self._loading.discard(view.name)

    async def _sent(self, view: HostView, keep: Keep) -> str:
        """Why it failed; empty: it is loaded."""
        renews = keep.state is KeepState.RENEWED
        row = (view.available or {})[keep.model]
        sent = view.runners.get(row.digest, ()) if renews else ()
        lease = self._fleet.lease(view.name, keep.model, sent, self._clock(), cold=not renews, wanted=False)
        tried = self._tried.get((view.name, keep.model), UNTRIED)
        self._tried[view.name, keep.model] = Tried(tried.times + (not renews), self._clock(), tried.why)
        try:
            context = view.loaded[row.digest].context if renews else 0
            options = ({"num_ctx": context} if context else {}) | dict(sent)
            answer = await self._ask(view, row.name, options, keep.kind)
            if answer.status == 200:
                self._admission.answered(lease, keep.model, self._clock(), Trigger.PRELOAD)
                took = self._clock() - lease.since  # the answer does not say
                if not renews and took > QUICK_SECONDS:
                    self._fleet.learn_load(lease, took, self._clock())
        except HostError as error:
            return str(error)
        finally:
            self._admission.release(lease, self._clock())
        return "" if answer.status == 200 else answer.error

    async def _ask(self, view: HostView, model: str, options: dict[str, Any], kind: KeepKind) -> HostAnswer:
        """With the options of the runner that is there, if one is: others would load it anew."""
        shift = {"shift": False} if "shift" in options else {}
        stay = {"keep_alive": FOREVER} if kind is KeepKind.PIN else {}
        rest = {"options": {key: value for key, value in options.items() if key != "shift"}, **shift, **stay}
        body = {"model": model, "prompt": "", "stream": False, **rest}
        answer = await self._client.call(view.host, "POST", "/api/generate", msgspec.json.encode(body), LOAD_SECONDS)
        if answer.status == 400 and EMBEDS_ONLY in answer.error:
            body = {"model": model, "input": [], **rest}
            return await self._client.call(view.host, "POST", "/api/embed", msgspec.json.encode(body), LOAD_SECONDS)
        return answer

    def _tell(self, wish: Wish, why: str) -> None:
        host, keep, place = wish.view.name, wish.keep, (wish.view.name, wish.keep.model)
        tried = self._tried.get(place, UNTRIED)
        outcome = "failed" if why else "renewed" if keep.state is KeepState.RENEWED else "loaded"
        self._metrics.preloads.labels(self._metrics.host_label(host), keep.kind, outcome).inc()
        if why:
            self._tried[place] = tried._replace(times=max(1, tried.times), why=why)
            log.warning("%s cannot be kept in the memory of %s: %s", keep.model, host, why)
        elif outcome == "loaded":
            self._tried[place] = tried._replace(why="")
            log.info("%s is loaded on %s, to stay (%s)", keep.model, host, keep.kind)


def pinned(pins: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """``llama3@gpu1`` and the like as canonical names by host."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for text in pins:
        model, _, host = text.rpartition("@")
        found[host].add(canonical(model))
    return {host: frozenset(models) for host, models in found.items()}
