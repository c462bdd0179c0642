"""Faults that can be switched on and off while a host runs."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from simulator.ledger import Ledger
from simulator.names import same

CONNECTION = ("refuse", "listening_off")
"""refuse: accept and close at once. listening_off: nobody listens, for `seconds` or until cleared; it has no times."""

BEFORE = ("reset_before_headers", "close_before_headers", "garbage", "busy")
"""RST, FIN or bytes that are not HTTP in place of an answer; or 503 `server busy`. All before the request is queued."""

HELD = ("hang_before_headers", "slow_first_byte")
"""With a slot held and nothing sent: wait until cleared, or for `seconds`."""

MID_STREAM = (
    "reset_mid_stream",
    "close_mid_stream",
    "error_mid_stream",
    "end_without_done",
    "hang_mid_stream",
    "garbage_mid_stream",
)
"""After `after_chunks` tokens: RST; FIN; what Ollama says when its runner dies; a clean end; silence; broken framing."""

LOADING = ("load_error", "slow_load")
"""The runner is found dead and loading it fails after `seconds` (500); loading takes `factor` times as long, and `seconds`."""

READING = ("slow_ps", "ps_error", "tags_error", "version_error", "ghost_model")
"""Polls that are slow or answer 500; a model that tags lists and inference does not know (404)."""

MANAGING = ("pull_error", "create_error", "copy_error", "delete_error", "hang_managing")
"""The registry does not have the model; or there is no space left for a create, a copy, a delete; or whatever manages models, and
show, waits before it begins, until cleared or for `seconds`."""

NAMES = frozenset((*CONNECTION, *BEFORE, *HELD, *MID_STREAM, *LOADING, *READING, *MANAGING))


@dataclass(slots=True, eq=False)
class Fault:
    """One fault that is switched on. `times` counts down and None never ends; `model` None means every model."""

    name: str
    model: str | None = None
    times: int | None = None
    after_chunks: int = 1
    seconds: float = 0.0
    factor: float = 10.0
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def hold(self) -> None:
        """Wait until it is cleared, or for its seconds if it has any."""
        try:
            async with asyncio.timeout(self.seconds or None):
                await self.over.wait()
        except TimeoutError:
            return

    def as_dict(self) -> dict[str, Any]:
        """The fault as it was set, with the times that are left."""
        names = ("name", "model", "times", "after_chunks", "seconds", "factor")
        return {name: getattr(self, name) for name in names}


class Faults:
    """The faults of one host. `on_change` is called after every `set` and `clear`."""

    def __init__(self, ledger: Ledger, on_change: Callable[[], None]) -> None:
        self._ledger = ledger
        self._on_change = on_change
        self._active: list[Fault] = []
        self._applied: list[Fault] = []

    def set(
        self,
        name: str,
        *,
        model: str | None = None,
        times: int | None = None,
        after_chunks: int = 1,
        seconds: float = 0.0,
        factor: float = 10.0,
    ) -> Fault:
        """Switch a fault on, in place of one of the same name and model; ValueError for a name that does not exist."""
        if name not in NAMES:
            raise ValueError(f"no fault is called {name!r}; there are {', '.join(sorted(NAMES))}")
        self._active = [fault for fault in self._active if (fault.name, fault.model) != (name, model)]
        fault = Fault(name, model, times, after_chunks, seconds, factor)
        self._active.append(fault)
        self._changed()
        return fault

    def clear(self, name: str | None = None) -> None:
        """Switch off one fault, or all; whatever hangs because of it goes on."""
        for fault in (*self._active, *self._applied):
            if name in (None, fault.name):
                fault.over.set()
        self._active = [fault for fault in self._active if not fault.over.is_set()]
        self._applied = [fault for fault in self._applied if not fault.over.is_set()]
        self._changed()

    def active(self, name: str, model: str | None = None) -> Fault | None:
        """The fault of that name that is on for `model`, without using it up."""
        return next((fault for fault in self._active if fault.name == name and _concerns(fault, model)), None)

    def take(self, names: Collection[str], model: str | None = None, chunks: int | None = None) -> Fault | None:
        """The first fault in force for `model` (and for that many chunks sent): counted, and one of its times used."""
        for fault in self._active:
            if fault.name in names and _concerns(fault, model) and (chunks is None or chunks >= fault.after_chunks):
                self._use(fault)
                return fault
        return None

    def _changed(self) -> None:
        self._on_change()
        self._ledger.changed()

    def _use(self, fault: Fault) -> None:
        self._ledger.faults[fault.name] += 1
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._active.remove(fault)
                self._applied.append(fault)
        self._ledger.changed()

    def __bool__(self) -> bool:
        return bool(self._active)

    def ghosts(self) -> list[str]:
        """Names of models that tags shall list though inference does not know them."""
        return [fault.model for fault in self._active if fault.name == "ghost_model" and fault.model is not None]

    def as_list(self) -> list[dict[str, Any]]:
        """The faults that are on, as JSON takes them."""
        return [fault.as_dict() for fault in self._active]


def _concerns(fault: Fault, model: str | None) -> bool:
    return fault.model is None or (model is not None and same(fault.model, model))
