"""How a host decides who runs: models in memory, one load at a time, eviction, slots, keep_alive.

A request for a loaded model with the same runner options goes straight to its slots (a FIFO without a limit). Any other
takes its turn in one FIFO for all loads, `max_queue` long, and there
1. finds that the request before it loaded what it needs, or
2. waits until the model's runner with other options is idle, and unloads it, or
3. waits until a model that must make room is idle, and unloads it, or
4. loads. A client that leaves ends its wait or its load, whichever it is in.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from simulator import clock
from simulator.faults import Faults
from simulator.ledger import Entry, Ledger
from simulator.models import SimulatedModel
from simulator.profile import HostProfile
from simulator.refusal import BUSY, LOAD_FAILED, Refusal
from simulator.text import common_prefix

FOREVER = 9_223_372_036.0
"""Seconds that a negative keep_alive means: Go's longest duration, 292 years."""


_SIMILAR = 0.1
"""Of a prompt, the part that a slot must know to be taken for it."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """The options that belong to a runner and not to a request. `num_ctx` None is the host's own choice."""

    num_ctx: int | None = None
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int = 0
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int = 4
    shift: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any], *, shift: bool) -> Self:
        """From a request's checked `options`; the other options are left out."""
        names = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
        return cls(shift=shift, **{name: options[name] for name in names if options.get(name) is not None})

    def differences(self, loaded: Self, automatic: int, most: int) -> list[str]:
        """The options for which a runner with `loaded` must be reloaded."""
        wanted = min(self.num_ctx or automatic, most)
        there = min(loaded.num_ctx or automatic, most)
        different = ["num_ctx"] if wanted != there else []
        if self.num_gpu not in (-1, loaded.num_gpu):
            different.append("num_gpu")
        rest = ("num_batch", "main_gpu", "use_mmap", "num_thread", "draft_num_predict", "shift")
        return different + [name for name in rest if getattr(self, name) != getattr(loaded, name)]


@dataclass(slots=True, eq=False)
class Slot:
    """One place in a runner; `cached` are the tokens of which it still holds the state."""

    cached: list[int] = field(default_factory=list)
    used: float = 0.0


@dataclass(slots=True, eq=False)
class Runner:
    """A model in memory, under the name that loaded it. `keep_seconds` starts when the last request ends."""

    model: SimulatedModel
    options: RunnerOptions
    context: int
    bytes: int
    vram_bytes: int
    keep_seconds: float
    slots: int
    holders: int = 0
    expires_at: float | None = None
    expiry: asyncio.TimerHandle | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    free: list[Slot] = field(init=False)
    turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.free = [Slot() for _ in range(self.slots)]
        self.turn = asyncio.Semaphore(self.slots)

    @asynccontextmanager
    async def slot(self, prompt: list[int]) -> AsyncIterator[tuple[Slot, int]]:
        """Wait for a slot; yields it with the number of tokens of `prompt` whose state it still has.

        The slot is the one that knows the most of the prompt; when none knows much, the one unused for the longest.
        """
        async with self.turn:
            known = max(self.free, key=lambda slot: common_prefix(slot.cached, prompt))
            enough = common_prefix(known.cached, prompt) > _SIMILAR * len(prompt)
            slot = known if enough else min(self.free, key=lambda slot: slot.used)
            self.free.remove(slot)
            try:
                yield slot, common_prefix(slot.cached, prompt)
            finally:
                slot.used = clock.now()
                self.free.append(slot)


class Scheduler:
    """The runners of one host."""

    def __init__(self, profile: HostProfile, faults: Faults, ledger: Ledger) -> None:
        self._profile = profile
        self._faults = faults
        self._ledger = ledger
        self._runners: dict[str, Runner] = {}
        self._load_turn = asyncio.Lock()
        self._pending = 0

    @property
    def runners(self) -> list[Runner]:
        """The models in memory; one that is being loaded is not among them."""
        return list(self._runners.values())

    @asynccontextmanager
    async def runner(
        self, model: SimulatedModel, options: RunnerOptions, keep_alive: float | None, entry: Entry
    ) -> AsyncIterator[Runner]:
        """Hold the runner for `model`, loaded if need be; Refusal 503 when too many wait, 500 when loading fails."""
        runner = self._usable(model, options)
        if runner is None:
            runner = await self._loaded(model, options, keep_alive, entry)
        else:
            self._hold(runner, keep_alive)
        try:
            yield runner
        finally:
            self._release(runner)

    def unload(self, model: SimulatedModel) -> None:
        """Unload as soon as nobody uses it; nothing happens when it is not loaded."""
        runner = self._runners.get(model.blob)
        if runner is not None:
            runner.keep_seconds = 0.0
            if runner.holders == 0:
                self._drop(runner)

    def forget(self) -> None:
        """Lose everything in memory at once, as a process that ends."""
        for runner in self._runners.values():
            _stop_timer(runner)
        self._runners.clear()
        self._ledger.changed()

    def _usable(self, model: SimulatedModel, options: RunnerOptions) -> Runner | None:
        runner = self._runners.get(model.blob)
        if runner is None or self._differences(runner, options):
            return None
        return None if self._faults.active("load_error", model.name.short) else runner

    def _differences(self, runner: Runner, options: RunnerOptions) -> list[str]:
        return options.differences(runner.options, self._profile.context_length, runner.model.context_length)

    async def _loaded(
        self, model: SimulatedModel, options: RunnerOptions, keep_alive: float | None, entry: Entry
    ) -> Runner:
        if self._load_turn.locked() and self._pending >= self._profile.max_queue:
            raise Refusal(503, BUSY)
        self._pending += 1
        try:
            await self._load_turn.acquire()
        finally:
            self._pending -= 1
        try:
            runner = self._usable(model, options)
            if runner is None:
                await self._fail_if_told(model, entry)
                await self._make_room(model, options)
                runner = await self._load(model, options, entry)
            self._hold(runner, keep_alive)
        finally:
            self._load_turn.release()
        self._ledger.move(entry, "queued")
        return runner

    async def _fail_if_told(self, model: SimulatedModel, entry: Entry) -> None:
        fault = self._faults.take(("load_error",), model.name.short)
        if fault is not None:
            self._ledger.move(entry, "loading")
            await clock.wait_until(clock.now() + fault.seconds)
            raise Refusal(500, LOAD_FAILED)

    async def _make_room(self, model: SimulatedModel, options: RunnerOptions) -> None:
        old = self._runners.get(model.blob)
        if old is not None:
            self._ledger.reloads.update(self._differences(old, options))
            await self._retire(old)
        needed = model.runner_bytes(self._context(model, options) * self._slots(model))
        while (victim := self._in_the_way(needed)) is not None:
            await self._retire(victim)

    def _in_the_way(self, needed: int) -> Runner | None:
        """The runner that must make room, or None when there is room; what is too large alone gets what there is."""
        used = sum(runner.vram_bytes for runner in self._runners.values())
        fits = self._profile.vram_bytes == 0 or used + needed <= self._profile.vram_bytes
        if not self._runners or (fits and len(self._runners) < self._profile.max_loaded):
            return None
        by_preference = sorted(self._runners.values(), key=lambda r: (r.holders > 0, r.keep_seconds, r.model.blob))
        return by_preference[0]

    async def _retire(self, runner: Runner) -> None:
        runner.keep_seconds = 0.0
        while self._runners.get(runner.model.blob) is runner:
            if runner.holders == 0:
                self._drop(runner)
            else:
                await runner.idle.wait()

    async def _load(self, model: SimulatedModel, options: RunnerOptions, entry: Entry) -> Runner:
        self._ledger.move(entry, "loading")
        seconds = model.blob_bytes / self._profile.load_bytes_per_second
        if (slow := self._faults.take(("slow_load",), model.name.short)) is not None:
            seconds = seconds * slow.factor + slow.seconds
        await clock.wait_until(clock.now() + seconds)
        context, slots = self._context(model, options), self._slots(model)
        size = model.runner_bytes(context * slots)
        vram = self._profile.vram_bytes
        keep = self._profile.keep_alive_seconds
        runner = Runner(model, options, context, size, min(size, vram), FOREVER if keep < 0 else keep, slots)
        self._runners[model.blob] = runner
        self._ledger.loads += 1
        return runner

    def _context(self, model: SimulatedModel, options: RunnerOptions) -> int:
        return min(options.num_ctx or self._profile.context_length, model.context_length)

    def _slots(self, model: SimulatedModel) -> int:
        return 1 if model.embeds_only else self._profile.parallel

    def _hold(self, runner: Runner, keep_alive: float | None) -> None:
        _stop_timer(runner)
        runner.idle.clear()
        runner.holders += 1
        if keep_alive is not None:
            runner.keep_seconds = keep_alive
        self._ledger.changed()

    def _release(self, runner: Runner) -> None:
        runner.holders -= 1
        if runner.holders or self._runners.get(runner.model.blob) is not runner:
            return
        runner.idle.set()
        if runner.keep_seconds <= 0:
            self._drop(runner)
            return
        runner.expires_at = time.time() + runner.keep_seconds
        if runner.keep_seconds < FOREVER:
            loop = asyncio.get_running_loop()
            runner.expiry = loop.call_later(runner.keep_seconds, self._drop, runner)

    def _drop(self, runner: Runner) -> None:
        _stop_timer(runner)
        del self._runners[runner.model.blob]
        self._ledger.unloads += 1
        self._ledger.changed()


def _stop_timer(runner: Runner) -> None:
    if runner.expiry is not None:
        runner.expiry.cancel()
        runner.expiry = None
