"""A real Prometheus that scrapes one gateway several times a second, and what it answers."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from gateway.tasks import pause
from grafana.queries import JOB
from tests.components import program
from tests.contract.raw import ask
from tests.sockets import LOOK_SECONDS, until

SCRAPE = "200ms"
SECONDS = 15.0
"""How long something may take to show."""

Json = Any


class Prometheus:
    """A server that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def get(self, path: str, **parameters: object) -> Json:
        """What its API answers."""
        answer = await ask(self._url, "GET", f"/api/v1/{path}?{urlencode(parameters)}")
        said = json.loads(answer.body)
        assert said["status"] == "success", f"{parameters}: {said}"
        return said["data"]

    async def values(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """What an expression is now: labels and value; what is no number is left out."""
        data = await self.get("query", query=expr)
        rows = (
            [({}, data["result"])]
            if data["resultType"] == "scalar"
            else [(row["metric"], row["value"]) for row in data["result"]]
        )
        return [(labels, float(value)) for labels, (_, value) in rows if not math.isnan(float(value))]

    async def firing(self) -> dict[str, list[dict[str, str]]]:
        """Labels of the alerts that fire, by name."""
        alerts: dict[str, list[dict[str, str]]] = {}
        for alert in (await self.get("alerts"))["alerts"]:
            if alert["state"] == "firing":
                alerts.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return alerts

    async def eventually(self, true: Callable[[], Awaitable[object]], seconds: float = SECONDS) -> None:
        """Return once this is so; asks Prometheus again and again."""
        async with asyncio.timeout(seconds):
            while not await true():
                await pause(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str, rules: Json) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes the gateway at ``target`` and evaluates these rules as often."""
    configuration = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [urlsplit(target).netloc]}]}],
    }
    (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            program("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            "--web.listen-address=127.0.0.1:0",
            "--enable-feature=exemplar-storage",
            stdout=out,
            stderr=out,
        )
    try:
        await until(lambda: process.returncode is not None or "Server is ready" in log.read_text(), SECONDS)
        assert process.returncode is None, log.read_text()
        address = log.read_text().partition('msg="Listening on" address=')[2].split()[0]
        yield Prometheus(f"http://{address}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
