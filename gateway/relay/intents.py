"""A generation of a session that is about to be, as its question is being kept, or a whole conversation. Who stops the session means it too."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.record import CancelSource, Phase


class Intent:
    """``with`` it: it is among ``announced``. ``stopped``: who wants it stopped, and why; ``told`` hears it at once. ``received`` is in monotonic
    seconds; ``principal``: whose it is."""

    def __init__(
        self, announced: dict[str, "Intent"], id_: str, session: str, received: float, principal: str = ""
    ) -> None:
        self._announced = announced
        self.id = id_
        self.session = session
        self.received = received
        self.principal = principal
        self.phase = Phase.QUEUED
        self.stopped: tuple[CancelSource, str] | None = None
        self.told: Callable[[CancelSource, str], None] | None = None

    def __repr__(self) -> str:
        return f"<Intent {self.id} [{self.session}]>"

    def __enter__(self) -> Self:
        self._announced[self.id] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._announced[self.id]

    def stop(self, source: CancelSource, why: str) -> bool:
        """Let it not begin, or go on. False if that was said before."""
        if self.stopped is not None:
            return False
        self.stopped = (source, why)
        if self.told is not None:
            self.told(source, why)
        return True
