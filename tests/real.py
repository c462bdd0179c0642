"""Ollama hosts that run elsewhere, named in ``CORRAL_TEST_OLLAMA=url,url``: what the tests ask of them in place of simulated ones."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

from simulator.ledger import Ledger

REAL = [url.rstrip("/") for url in os.environ.get("CORRAL_TEST_OLLAMA", "").split(",") if url]
"""Their addresses; empty where there are none."""


class RealHost:
    """An Ollama that runs elsewhere; its ledger stays empty."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.ledger = Ledger()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """It goes on running."""


def real_hosts() -> list[RealHost]:
    """One for each address."""
    return [RealHost(f"real{number}", url) for number, url in enumerate(REAL, 1)]


def smallest(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The smallest model for each capability, from the rows of /api/tags."""
    names: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: int(row["size"])):
        for kind in row.get("capabilities") or ["completion"]:
            names.setdefault(kind, str(row["model"]))
    return names
