"""Fair shares of those who wait: each principal gets as many predicted seconds as every other who waits too, times its weight, whatever they ask for
at once.

Start-time fair queueing: a principal stands where its own seconds, divided by its weight, have come to, but never before those who are served now;
the one who stands first is next, with whichever of its requests. Over any time in which two principals both wait, the seconds that they got, each
divided by their weight, differ by at most one request of each, divided likewise. It is what deficit round robin does, without rounds: requests are bound late, and to the host that suits them.
"""

FORGOTTEN = 1024  # principals that are remembered though they do not wait


class Shares:
    """Of one priority."""

    def __init__(self) -> None:
        self._now = 0.0  # where the one stood who was served last
        self._stands: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def come(self, principal: str) -> None:
        """One more request of this principal waits."""
        count = self._waiting.get(principal, 0)
        self._waiting[principal] = count + 1
        self._count += 1
        if not count:
            self._stands[principal] = max(self._now, self._stands.get(principal, 0.0))

    def stands(self, principal: str) -> float:
        """Where a principal stands that waits: the least is next. Predicted seconds."""
        return self._stands[principal]

    def would_stand(self, principal: str) -> float:
        """Where a principal stands, or would if a request of its own came now."""
        stood = self._stands.get(principal, 0.0)
        return stood if principal in self._waiting else max(self._now, stood)

    def waiting(self, principal: str) -> int:
        """How many requests of this principal wait."""
        return self._waiting.get(principal, 0)

    def served(self, principal: str, seconds: float, weight: float = 1.0) -> None:
        """One of those who wait got a slot, for so long."""
        stood = self._stands[principal]
        self._now = max(self._now, stood)
        self._stands[principal] = stood + seconds / weight

    def left(self, principal: str) -> None:
        """One request waits no more. Nobody is remembered for long: when nobody waits, the crowd has gone that had to share."""
        self._waiting[principal] -= 1
        self._count -= 1
        if not self._waiting[principal]:
            del self._waiting[principal]
        if not self._waiting:
            self._now = 0.0
            self._stands.clear()
        elif len(self._stands) > len(self._waiting) + FORGOTTEN:
            self._stands = {name: at for name, at in self._stands.items() if name in self._waiting or at > self._now}
