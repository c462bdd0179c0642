"""Policies: by what hosts compare. All but ``predictive`` are there to be compared with (bench/routing): they look at no seconds.

Each gives a host a rank of three numbers, the least wins; equal ranks are left to chance. All of them share the filters, the leases and the
waiting room, which is more than balancers that know them by name have: whoever finds every slot taken waits here, not on a host.
"""

from enum import StrEnum
from typing import Final

from gateway.fleet.snapshot import HostView

Rank = tuple[float, float, float]


class Policy(StrEnum):
    """How hosts compare."""

    PREDICTIVE = "predictive"
    LEAST_CONNECTIONS = "least_connections"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    WARM_FIRST = "warm_first"


_PREDICTIVE: Final = Policy.PREDICTIVE


def rank(policy: Policy, total: float, load_time: float, view: HostView, ahead: int) -> Rank:
    """Where this host stands, whose ``Costs`` are these. Of equals: the one with fewer leases, then the one used longest ago (its caches are the least missed)."""
    if policy is _PREDICTIVE:
        return total, float(view.leases), view.leased_at
    busy = float(view.leases + view.elsewhere + ahead)
    blocked = load_time > 0 and bool(view.loading)  # one load at a time
    full = 1.0 if blocked or busy >= view.slots else 0.0
    match policy:
        case Policy.LEAST_CONNECTIONS:
            return (1.0 if blocked else 0.0), busy / view.slots, view.leased_at
        case Policy.ROUND_ROBIN:
            return full, float(ahead), view.leased_at
        case Policy.WARM_FIRST:
            return full, 1.0 if load_time > 0 else 0.0, busy / view.slots
        case _:
            return full, 0.0, 0.0
