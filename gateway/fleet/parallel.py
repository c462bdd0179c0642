"""How many requests for a model a host runs at once, found from what its answers tell. Pure.

Ollama has a number for it (OLLAMA_NUM_PARALLEL, for each loaded model; some kinds of models get 1 whatever it says), and no API tells it. But the last
chunk of an answer says how long it took in all, and how much of that was loading, reading and answering: what is left was waiting for a slot.

| an answer shows that it …                                     | what follows                                                   |
|---------------------------------------------------------------|----------------------------------------------------------------|
| waited, as the one more that was tried                        | back to one less, and no other try for a pause, twice as long  |
| waited, and two before it, with nothing better between        | fewer than the fewest beside which one waited, and a pause     |
| ran together with others                                      | waiting beside no more than these is forgotten                 |
| ran together with as many as may be out, PROOFS times         | what was tried is proved; one more is tried, if more may be    |
| was too short to tell, or tells no durations (/v1, embedding) | nothing                                                        |
"""

from math import inf
from typing import Final, NamedTuple

from gateway.fleet.ewma import blend

FOUND_MOST: Final = 8  # where no slots are configured
WAIT_SECONDS: Final = 0.25  # what is shorter than that may be the network's, or a tokenizer's
ALONE_MOST_SECONDS: Final = 1.0  # that an answer may take beside its parts though it runs alone: images, a grammar
WAITS, PROOFS = 3, 3
PAUSE_SECONDS, PAUSE_MOST_SECONDS = 600.0, 14_400.0
RUNS_REMEMBERED: Final = 16


class Run(NamedTuple):
    """What a whole answer tells, monotonic seconds: from when until when the host worked on it (prompt and answer), and how long it was there beside that.

    ``beside``: requests for the model that were out at this host when it went there, or a moment later, itself included; ``alone``: no other was, to its end.
    """

    beside: int
    alone: bool
    began: float
    ended: float
    idle: float


class Parallel:
    """Of one model on one host. ``limit``: requests that may be out at once; ``most``: that it may ever be."""

    __slots__ = ("_again_at", "_alone", "_least", "_pause", "_proofs", "_runs", "_trying", "_waits", "limit", "most")

    def __init__(self, limit: int, most: int) -> None:
        self.limit = max(1, min(limit, most))
        self.most = most
        self._trying = False  # the last step up has not been proved yet
        self._waits, self._least = 0, inf  # how many waited, and beside how few
        self._proofs = 0
        self._alone: float | None = None  # what an answer takes beside its parts though nobody is in its way
        self._pause = PAUSE_SECONDS
        self._again_at = -inf
        self._runs: list[tuple[float, float]] = []

    def __repr__(self) -> str:
        return f"<Parallel [{self.limit} of {self.most}{', being tried' if self._trying else ''}]>"

    @property
    def proved(self) -> int:
        """``limit`` without what is being tried."""
        return self.limit - 1 if self._trying else self.limit

    def learn(self, run: Run, *, ours: bool) -> bool:
        """Take in an answer; whether ``limit`` or ``proved`` is another now. ``ours``: no other gateway uses the host just now."""
        before = self.limit, self._trying
        if run.alone:
            self._alone = min(ALONE_MOST_SECONDS, blend(self._alone, run.idle))
        waited = run.beside > 1 and run.idle - (self._alone or 0.0) > WAIT_SECONDS
        # with all that may ever be, and nobody who waited, nothing follows from going well: most fleets, most of the time
        settled = self.limit == self.most and not self._trying and self._least == inf
        together = 0 if settled else self._together(run)
        if together >= self._least:
            self._waits, self._least = 0, inf
        if waited:
            if ours and run.beside <= self.limit:  # else it was sent before the limit was lowered
                self._held_up(run)
        elif not settled and together >= self.limit:
            self._went_well(run)
        return (self.limit, self._trying) != before

    def _held_up(self, run: Run) -> None:
        self._proofs = 0
        self._waits += 1
        self._least = min(self._least, run.beside)
        if self._trying and run.beside == self.limit:
            self._pause = min(PAUSE_MOST_SECONDS, 2 * self._pause)
            self._lower(self.limit - 1, run.ended)
        elif self._waits >= WAITS:
            self._lower(int(self._least) - 1, run.ended)

    def _lower(self, limit: int, now: float) -> None:
        self.limit = max(1, limit)
        self._trying = False
        self._waits, self._least = 0, inf
        self._again_at = now + self._pause

    def _went_well(self, run: Run) -> None:
        self._proofs += 1
        if self._proofs < PROOFS:
            return
        if self._trying:
            self._trying, self._pause = False, PAUSE_SECONDS
        if self.limit < self.most and run.ended >= self._again_at:
            self.limit += 1
            self._trying = True
            self._proofs = 0

    def _together(self, run: Run) -> int:
        """How many of the last runs were under way at one moment of this one, itself included; 0: it was too short to tell."""
        runs = [one for one in self._runs if one[1] > run.began + WAIT_SECONDS]
        runs.append((run.began, run.ended))
        self._runs = runs[-RUNS_REMEMBERED:]
        most = 0
        for began, _ in runs:
            at = max(began, run.began)
            under_way = sum([first <= at and at + WAIT_SECONDS <= last for first, last in runs])
            if at + WAIT_SECONDS <= run.ended:
                most = max(most, under_way)
        return most
