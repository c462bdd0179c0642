"""A host in virtual time, by the rules of Ollama's scheduler as simulator/scheduler.py has them.

A request for a loaded model with the same num_ctx takes a slot of its runner, first come first served; any other stands in the one line for
loads, whose head waits until what must leave is idle, and then loads. Each slot knows the prompt it had last.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.routing.agenda import Agenda
from bench.routing.trace import Ask
from bench.routing.world import CONTEXT, Model, Place

KEEP_ALIVE_SECONDS = 300.0
MODELS_LOADED = 3


@dataclass(slots=True, eq=False)
class Job:
    """One request on a host. ``first`` is called with the first token, ``over`` at the end, with whether the answer came whole."""

    ask: Ask
    first: Callable[["Job"], None]
    over: Callable[["Job", bool], None]
    came: float = 0.0
    load_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    started: float | None = None
    gone: bool = False


@dataclass(slots=True, eq=False)
class Runner:
    """A model in memory. ``known``: conversation and tokens of each slot that is free, the one unused for longest first."""

    model: Model
    context: int
    memory: int
    known: list[tuple[int, int]]
    holders: int = 0
    leaving: bool = False
    idle_since: float = 0.0
    line: deque[Job] = field(default_factory=deque)


class VirtualHost:
    """One host. ``loads``, ``loading_seconds``, ``reloads``: what it did besides answering; ``lost_seconds``: work that came to nothing."""

    def __init__(self, place: Place, agenda: Agenda) -> None:
        self.place = place
        self.runners: dict[str, Runner] = {}
        self.alive = True
        self.loads = self.reloads = 0
        self.loading_seconds = self.lost_seconds = 0.0
        self._agenda = agenda
        self._line: deque[Job] = deque()
        self._loading: Job | None = None
        self._jobs: set[Job] = set()

    def take(self, job: Job) -> None:
        """A request arrives."""
        job.came = self._agenda.now
        self._jobs.add(job)
        runner = self.runners.get(job.ask.model.name)
        if runner is not None and not runner.leaving and runner.context == job.ask.context:
            self._hold(runner, job)
        else:
            self._line.append(job)
            self._load_next()

    def hold(self, models: Iterable[Model]) -> None:
        """It has these in memory from the beginning, as far as they fit together."""
        for model in models:
            if self._in_the_way(model.memory(CONTEXT)) is None:
                self.runners[model.name] = self._runner(model, CONTEXT)

    def _runner(self, model: Model, context: int) -> Runner:
        memory = min(model.memory(context), int(self.place.card.vram))
        return Runner(model, context, memory, [(0, 0)] * self.place.slots)

    def die(self) -> None:
        """All that runs breaks off, and memory is empty."""
        self.alive = False
        jobs, self._jobs = self._jobs, set()
        self.runners.clear()
        self._line.clear()
        self._loading = None
        for job in sorted(jobs, key=lambda job: job.came):
            job.gone = True
            if job.started is not None:
                self.lost_seconds += self._agenda.now - job.started
            job.over(job, False)

    def _load_next(self) -> None:
        while self._line and self._loading is None:
            job = self._line[0]
            runner = self.runners.get(job.ask.model.name)
            if runner is not None and not runner.leaving and runner.context == job.ask.context:
                self._line.popleft()
                job.load_seconds = self._agenda.now - job.came  # as Ollama tells it: until there is a runner
                self._hold(runner, job)
                continue
            victim = runner or self._in_the_way(job.ask.model.memory(job.ask.context))
            if victim is None:
                self._load(job)
                return
            victim.leaving = True
            if victim.holders:
                return
            self.reloads += victim is runner
            del self.runners[victim.model.name]

    def _in_the_way(self, needed: int) -> Runner | None:
        used = sum(runner.memory for runner in self.runners.values())
        if not self.runners or (used + needed <= self.place.card.vram and len(self.runners) < MODELS_LOADED):
            return None
        return min(self.runners.values(), key=lambda runner: (runner.holders > 0, hash_of(runner.model.name)))

    def _load(self, job: Job) -> None:
        self._loading = job
        seconds = self.place.card.load_seconds(job.ask.model)

        def loaded() -> None:
            if self._loading is not job:
                return  # it died meanwhile
            self._loading = None
            self._line.popleft()
            runner = self.runners[job.ask.model.name] = self._runner(job.ask.model, job.ask.context)
            self.loads += 1
            self.loading_seconds += seconds
            job.load_seconds = self._agenda.now - job.came
            self._hold(runner, job)
            self._load_next()

        self._agenda.at(self._agenda.now + seconds, loaded)

    def _hold(self, runner: Runner, job: Job) -> None:
        runner.holders += 1
        if runner.known:
            self._answer(runner, job)
        else:
            runner.line.append(job)

    def _answer(self, runner: Runner, job: Job) -> None:
        ask, now, card = job.ask, self._agenda.now, self.place.card
        mine = [slot for slot in runner.known if slot[0] == ask.conversation]
        slot = mine[0] if mine else runner.known[0]
        runner.known.remove(slot)
        cached = min(slot[1], ask.prompt_tokens - 1) if mine else 0
        job.started = now
        job.prefill_seconds = (ask.prompt_tokens - cached) / card.prefill_rate(ask.model)
        job.decode_seconds = ask.output_tokens / card.decode_rate(ask.model)

        def first() -> None:
            if not job.gone:
                job.first(job)

        def last() -> None:
            if job.gone:
                return
            runner.known.append((ask.conversation, ask.prompt_tokens + ask.output_tokens))
            self._jobs.discard(job)
            runner.holders -= 1
            if runner.line:
                self._answer(runner, runner.line.popleft())
            if not runner.holders:
                self._idle(runner)
            self._load_next()
            job.over(job, True)

        self._agenda.at(now + job.prefill_seconds, first)
        self._agenda.at(now + job.prefill_seconds + job.decode_seconds, last)

    def _idle(self, runner: Runner) -> None:
        since = runner.idle_since = self._agenda.now

        def expired() -> None:
            here = self.runners.get(runner.model.name) is runner
            if here and not runner.holders and runner.idle_since == since:
                del self.runners[runner.model.name]

        self._agenda.at(since + KEEP_ALIVE_SECONDS, expired)


def hash_of(name: str) -> int:
    """An order of models that has nothing to do with how they are used, as that of Ollama's blobs."""
    return int(sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 1_000_003)
