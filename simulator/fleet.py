"""Several simulated hosts in one event loop."""

import asyncio
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from simulator.host import SimulatedHost
from simulator.profile import HostProfile


class SimulatedFleet:
    """Hosts by name. `async with` starts and stops them all; the same request has the same answer on each."""

    def __init__(self, profiles: Mapping[str, HostProfile], *, seed: int = 0) -> None:
        self.hosts = tuple(SimulatedHost(name, profile, seed=seed) for name, profile in profiles.items())

    @classmethod
    def of(cls, count: int, profile: HostProfile | None = None, *, seed: int = 0) -> Self:
        """`count` equal hosts, called sim1, sim2, …"""
        return cls({f"sim{number}": profile or HostProfile() for number in range(1, count + 1)}, seed=seed)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they listen, once they have started."""
        return tuple(host.url for host in self.hosts)

    async def start(self, base_port: int = 0, address: str = "127.0.0.1") -> None:
        """Start all: on ports one after the other, or on free ones with 0. OSError, and none runs, when one is taken."""
        try:
            for index, host in enumerate(self.hosts):
                await host.start(base_port + index if base_port else 0, address)
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(host.stop() for host in self.hosts))

    def __getitem__(self, name: str) -> SimulatedHost:
        return next(host for host in self.hosts if host.name == name)

    def __iter__(self) -> Iterator[SimulatedHost]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
