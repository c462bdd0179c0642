"""What /openapi.json says is true: schemathesis asks a running gateway for everything it describes, and for what it does not allow."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.flows.detaching import detach
from tests.sockets import until
from tests.stage import Stage
from tests.turns.talking import Talk

ANYBODY = {"anonymous": "full"}
"""May do everything, also when there are keys: what is described makes some, too."""

SECONDS = 240.0  # alone it takes some twenty
WAITING = 60
"""Generations in flight: schemathesis stops some for good."""

SETTINGS = """
color = false
continue-on-failure = true
request-timeout = 10
workers = 1

[checks]
enabled = true

[generation]
database = "none"
deterministic = true
max-examples = 10

[phases.stateful]
max-steps = 4
generation.max-examples = 20
enabled = true

[warnings]
fail-on = true

[[operations]]
include-path-regex = "stats|requests"
checks.positive_data_acceptance.enabled = false  # no schema can say which texts are times, and which times go together

[[operations]]
include-path = "/api/jobs/{id}"
checks.use_after_free.enabled = false  # DELETE stops a job: it is listed among those that ended

[[operations]]
include-path-regex = "/api/(sessions|search)"
checks.positive_data_acceptance.enabled = false  # hosts and messages must be known, a word must be in it: no schema can say it

[[operations]]
include-path-regex = "/api/sessions/[{]id[}]/chat"
warnings = false  # most models, parents and images that fit the schema are not there, or are none

[[operations]]
include-path = "/api/chat/multi-model"
checks.positive_data_acceptance.enabled = false  # what goes with which mode, and which sessions there are: no schema can say it
warnings = false

[[operations]]
include-path = "/api/sessions/{id}/messages"
warnings = false  # what can only be seen is nothing said

[[operations]]
include-path = "/api/sessions/{id}/title"
enabled = false  # what was said before would be titled by hosts that are made to hang: tests/turns/test_titles.py

[[operations]]
include-path = "/api/route/explain"
checks.positive_data_acceptance.enabled = false  # what is no form has no transcriptions: no schema can say it

[[operations]]
include-path = "/api/import"
enabled = false  # what comes in would be answered, and titled, by hosts that are made to hang: tests/store/test_api.py
"""
KNOWN = """
[dictionaries.{name}]
values = {values}

[[operations]]
include-path-regex = "{paths}"
parameters = {{ "{parameter}" = {{ dictionary = "{name}", probability = {share} }} }}
"""


async def _settings(stage: Stage, tasks: contextlib.AsyncExitStack) -> str:
    """Settings that know the hosts, and something of everything: generations that stream, wait or are kept, a job that ended."""
    kept = await detach(stage, call("/api/generate"))
    gone = await ask(stage.url, "DELETE", "/api/delete", json.dumps({"model": "nobody"}).encode())
    talk = await Talk.new(stage)
    assert (await talk.say("Why?", options={"num_predict": 2})).status == 200
    assert (await ask(stage.url, "POST", f"{talk.path}/title", b"{}")).status == 200
    await stage.records.until(3)
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    for host in stage.hosts:
        host.faults.set("hang_mid_stream", after_chunks=2)
    for number in range(WAITING):
        await tasks.enter_async_context(stage.begun(call("/api/generate"), str(number)))
    rows = await stage.until(lambda rows: rows if len(rows) == WAITING else None)
    known: dict[str, tuple[list[str], str, str, float]] = {
        "generations": ([row["id"] for row in rows], "generations/[{]id[}]$|cancel", "path.id", 0.5),
        "kept": ([kept], "stream$", "path.id", 0.5),
        "jobs": ([str(gone.get("X-Corral-Job"))], "jobs", "path.id", 0.5),
        "hosts": (["gpu1"], "hosts", "path.name", 0.5),
        "requests": ([record.id for record in stage.records], "requests", "path.id", 0.5),
        "servers": (["gpu1", stage["gpu1"].url], "server/models", "query.server_url", 0.5),
        "pins": (
            ["gpu1", "gpu2"],
            "explain",
            "header.X-Corral-Host",
            1.0,
        ),  # an unknown one is a 400: no schema can say it
    }
    return SETTINGS + "".join(
        KNOWN.format(name=name, values=json.dumps(values), paths=paths, parameter=parameter, share=share)
        for name, (values, paths, parameter, share) in known.items()
    )


async def test_schemathesis_finds_nothing(corral: Corral, tmp_path: Path) -> None:
    """Statuses, types, headers and shapes are as described; what is described as wrong is refused; nothing is a 500."""
    stage = await corral(
        simulated("gpu1"), simulated("gpu2"), database={"url": f"sqlite:///{tmp_path}/corral.db"}, access=ANYBODY
    )
    settings = tmp_path / "schemathesis.toml"
    async with contextlib.AsyncExitStack() as tasks:
        settings.write_text(await _settings(stage, tasks), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
            *("run", f"{stage.url}/openapi.json"),
            cwd=tmp_path,
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    assert process.returncode == 0, said.decode()
    answered = {
        route for route, code in await stage.totals("corral_http_responses_total", "route", "code") if code == "200"
    }
    answered.add("/api/import")
    assert set((await stage.get("/openapi.json"))["paths"]) <= answered, "what was only ever refused is not tested"
