"""What a scenario is given, and what it returns."""

from dataclasses import dataclass
from typing import Any

from bench.contenders import Contender
from bench.processes import Running

Sample = dict[str, Any]  # numbers, and the first error's text where one occurred


@dataclass(frozen=True)
class Subject:
    """A contender that is up, in front of its simulated host (or hosts: then the first of them)."""

    contender: Contender
    proxy: Running
    sim: Running

    def cpu_ns(self) -> int:
        return self.proxy.cpu_ns() if self.proxy is not self.sim else 0


class LoadFailed(RuntimeError):
    """The load generator itself broke down."""
