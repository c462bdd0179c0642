"""A fleet and its waiting room, and those who come there, without a loop or a socket."""

from typing import Any

from gateway.fleet.health import BreakerPolicy
from gateway.fleet.host import Host
from gateway.fleet.registry import Fleet
from gateway.routing.admission import Admission, Grant, Verdict
from gateway.routing.waiting import NEVER, Waiter
from tests.builders import TEXT
from tests.fleet.builders import host, observation, request


class First:
    """Chance that always picks the first."""

    def randrange(self, _stop: int, /) -> int:
        """Zero."""
        return 0


class Client:
    """One request and what became of it. ``there``: whether it still takes a verdict."""

    def __init__(self, model: str = TEXT, tried: str = "", **more: Any) -> None:
        self.request = request(model, **more)
        self.tried = frozenset(tried.split())
        self.verdicts: list[Verdict] = []
        self.waiter: Waiter | None = None
        self.there = True
        self.due = NEVER

    def deliver(self, verdict: Verdict) -> bool:
        """Take a verdict, as the relay does."""
        if not self.there:
            return False
        self.verdicts.append(verdict)
        return True

    @property
    def kind(self) -> tuple[Any, ...]:
        """Who has the same can go to the same hosts at the same price."""
        return self.request.model, self.request.runner_options, self.tried

    @property
    def line(self) -> tuple[Any, ...]:
        """Who has the same waits in the same line."""
        return *self.kind, self.request.priority, self.request.party

    @property
    def grant(self) -> Grant:
        """The grant that it got."""
        (verdict,) = self.verdicts
        assert isinstance(verdict, Grant)
        return verdict


class Room:
    """A fleet that was polled once, and its waiting room."""

    def __init__(
        self, *hosts: Host, limit: int = 100, holds: tuple[str, ...] = (TEXT,), per_principal: int = 0
    ) -> None:
        self.fleet = Fleet(hosts or [host()], BreakerPolicy(failures=1, eject_seconds=10.0))
        self.admission = Admission(self.fleet, limit, First(), per_principal=per_principal)
        for one in self.fleet.hosts:
            self.fleet.observe(one.name, observation(0.0, holds=holds))

    def come(self, client: Client, now: float = 0.0) -> Client:
        """Arrive as the relay does: take what is there, or wait."""
        due = now + (client.request.deadline_seconds or NEVER)
        verdict = self.admission.grant(client.request, now, client.tried, due)
        if verdict is None:
            client.waiter = self.admission.join(client.request, now, client.deliver, client.tried, due)
        else:
            client.deliver(verdict)
        return client

    def many(self, count: int, **more: Any) -> list[Client]:
        """So many equal requests, one after the other."""
        return [self.come(Client(**more)) for _ in range(count)]

    def end(self, client: Client, now: float = 0.0) -> None:
        """A request that was granted is done."""
        self.admission.release(client.grant.lease, now)


def granted(clients: list[Client]) -> list[bool]:
    """Who has a grant."""
    return [bool(client.verdicts) and isinstance(client.verdicts[0], Grant) for client in clients]
