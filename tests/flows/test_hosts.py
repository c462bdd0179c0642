"""The hosts behind the address: they can be looked at, named for one request, and drained."""

import asyncio
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, HostConfig
from gateway.loader import load
from simulator.host import SimulatedHost
from tests.builders import EMBEDDING, OTHER, PATHS, TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Stage

PINNED = {"X-Corral-Host": "gpu2"}


async def told(stage: Stage, path: str, method: str = "GET") -> Any:
    """A 200 answer, read."""
    answer = await ask(stage.url, method, path)
    assert answer.status == 200
    return json.loads(answer.body)


def error_of(body: bytes) -> str:
    """The words of an error, in any dialect."""
    error = json.loads(body)["error"]
    return str(error if isinstance(error, str) else error["message"])


# -- looking ------------------------------------------------------------------------------------------------------------------


async def test_servers(corral: Corral) -> None:
    """Every host with its state, what it has, and what it holds in memory."""
    one, two = simulated("gpu1", TEXT), simulated("gpu2", TEXT, OTHER)
    await two.load(OTHER)
    stage = await corral(one, two, slots={"gpu1": 1, "gpu2": 4})
    rows = (await told(stage, "/api/models/servers"))["servers"]
    assert [(row["name"], row["url"], row["health"], row["slots"], row["leases"]) for row in rows] == [
        ("gpu1", one.url, "healthy", 1, 0),
        ("gpu2", two.url, "healthy", 4, 0),
    ]
    assert [{model["name"] for model in row["models_available"]} for row in rows] == [{TEXT}, {OTHER, TEXT}]
    assert [[model["name"] for model in row["models_loaded"]] for row in rows] == [[], [OTHER]]
    held = rows[1]["models_loaded"][0]
    assert min(held["size_vram"], held["context_length"]) > 0
    assert held["expires_at"]
    assert rows[0]["version"] == json.loads((await ask(one.url, "GET", "/api/version")).body)["version"]


async def test_a_load_that_only_an_answer_proves(corral: Corral) -> None:
    """It is listed before any poll saw it, with the fields that scripts expect."""
    stage = await corral(simulated("gpu1"))
    await stage.ask(call("/api/generate"))
    (row,) = (await told(stage, "/api/models/servers"))["servers"]
    assert [model["name"] for model in row["models_loaded"]] == [TEXT]
    assert set(row["models_loaded"][0]) >= {"name", "digest", "size", "size_vram", "context_length", "expires_at"}


async def test_what_was_learned(corral: Corral) -> None:
    """How fast a host is with a model is told once it was seen, and to nobody's account but this host's."""
    stage = await corral(simulated("gpu1", TEXT, OTHER, prefill_tokens_per_second=2000.0), simulated("gpu2", TEXT))
    await stage.ask(call("/api/generate", prompt="why " * 250, headers={"X-Corral-Host": "gpu1"}))
    one, two = (await told(stage, "/api/models/servers"))["servers"]
    (known,) = one["learned"]
    assert known["model"] == TEXT
    assert min(known["load_seconds"], known["prefill_tokens_per_second"], known["decode_tokens_per_second"]) > 0
    assert (two["learned"], two["models_loading"], two["vram_bytes"]) == ([], [], 0)


async def test_a_model_that_is_being_loaded(corral: Corral) -> None:
    """Is named as long as the load lasts."""
    one = simulated("gpu1")
    stage = await corral(one)
    one.faults.set("slow_load", seconds=60.0)
    async with stage.begun(call("/api/generate"), "loads"):
        await stage.row("loads", "prefill")
        (row,) = (await told(stage, "/api/models/servers"))["servers"]
        assert row["models_loading"] == [TEXT]


async def test_a_host_that_is_down_is_listed_with_the_reason(corral: Corral) -> None:
    """Nobody waits for it, and nothing of it is hidden."""
    one, two = simulated("gpu1"), simulated("gpu2")
    two.faults.set("refuse")
    stage = await corral(one, two)
    rows = (await told(stage, "/api/models/servers"))["servers"]
    assert [(row["health"], bool(row["why"])) for row in rows] == [("healthy", False), ("suspect", True)]
    assert rows[1]["models_available"] == rows[1]["models_loaded"] == []
    assert rows[1]["seen_seconds_ago"] is None


@pytest.mark.parametrize("spell", ["{url}", "{url}/", "{bare}", "{upper}", "gpu2"])
async def test_one_hosts_models(corral: Corral, spell: str) -> None:
    """The host can be named by its URL in any equal spelling, or by its name."""
    stage = await corral(simulated("gpu1", TEXT), simulated("gpu2", OTHER))
    url = stage["gpu2"].url
    given = spell.format(url=url, bare=url.removeprefix("http://"), upper=url.replace("http", "HTTP"))
    answer = await told(stage, f"/api/models/server/models?server_url={given}")
    assert [model["name"] for model in answer["models"]] == [OTHER]
    assert answer["server"] == {"name": "gpu2", "url": url}


@pytest.mark.parametrize(
    "given", ["http://169.254.169.254/latest", "gpu3", "http://[", "file:///etc/passwd", "//", "%00"]
)
async def test_nothing_else_is_fetched(corral: Corral, given: str) -> None:
    """What is not configured is 404."""
    stage = await corral(simulated("gpu1"))
    answer = await ask(stage.url, "GET", f"/api/models/server/models?server_url={given}")
    assert (answer.status, "gpu1" in error_of(answer.body)) == (404, True)


async def test_a_server_must_be_named(corral: Corral) -> None:
    """Without one, the error says how."""
    stage = await corral(simulated("gpu1"))
    answer = await ask(stage.url, "GET", "/api/models/server/models")
    assert (answer.status, "server_url" in error_of(answer.body)) == (400, True)


async def test_what_is_amiss(corral: Corral) -> None:
    """Is told at /api/fleet and counted at /metrics."""
    stage = await corral(simulated("gpu1", TEXT, OTHER), simulated("gpu2", TEXT))
    answer = await told(stage, "/api/fleet")
    assert [host["name"] for host in answer["hosts"]] == ["gpu1", "gpu2"]
    assert [(row["kind"], row["model"], row["hosts"]) for row in answer["findings"]] == [
        ("few_copies", OTHER, ["gpu1"])
    ]
    counted = await stage.totals("corral_fleet_findings", "kind")
    assert {key: value for key, value in counted.items() if value} == {"few_copies": 1}


async def test_a_ghost(corral: Corral) -> None:
    """A model that a host lists but has not is told of, until it answers after all."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two)
    one.faults.set("ghost_model")
    two.faults.set("ghost_model")
    await stage.ask(call("/api/generate"))
    one.faults.clear()
    two.faults.clear()
    await stage.gateway.poller.refresh_inventories(5.0)
    kinds = {row["kind"] for row in (await told(stage, "/api/fleet"))["findings"]}
    assert kinds == {"ghost_model"}
    for name in ("gpu1", "gpu2"):
        assert (await stage.ask(call("/api/generate", headers={"X-Corral-Host": name}))).status == 200
    assert (await told(stage, "/api/fleet"))["findings"] == []


# -- pinning ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_a_pin(corral: Corral, path: str) -> None:
    """The named host answers, though another would be cheaper."""
    one, two = simulated("gpu1"), simulated("gpu2")
    await one.load(TEXT)
    stage = await corral(one, two)
    assert (await stage.ask(call(path, headers=PINNED))).get("X-Corral-Host") == "gpu2"
    (record,) = await stage.records.until(1)
    assert record.route is not None
    assert (record.route.reason, [left.code for left in record.route.rejected]) == ("pinned", ["pinned_elsewhere"])


@pytest.mark.parametrize("path", PATHS)
async def test_a_pin_to_nobody(corral: Corral, path: str) -> None:
    """Is a 400 that names who there is."""
    stage = await corral(simulated("gpu1"))
    answer = await stage.ask(call(path, headers=PINNED))
    assert answer.status == 400
    assert "gpu2" in error_of(answer.body)
    assert "gpu1" in error_of(answer.body)


async def test_a_pin_to_a_host_without_the_model(corral: Corral) -> None:
    """404 as ever, and it says where."""
    stage = await corral(simulated("gpu1", TEXT), simulated("gpu2", OTHER))
    answer = await stage.ask(call("/api/generate", headers=PINNED))
    assert (answer.status, error_of(answer.body)) == (404, f"model '{TEXT}' not found on host gpu2")


async def test_a_pin_to_a_host_that_fails(corral: Corral) -> None:
    """Nobody else is tried."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two)
    two.faults.set("reset_before_headers")
    answer = await stage.ask(call("/api/generate", headers=PINNED))
    assert (answer.status, "gpu2" in error_of(answer.body)) == (502, True)
    assert not one.ledger.entries


async def test_a_pinned_unload(corral: Corral) -> None:
    """Reaches that host only."""
    one, two = simulated("gpu1"), simulated("gpu2")
    await one.load(TEXT)
    await two.load(TEXT)
    stage = await corral(one, two)
    answer = await stage.ask(call("/api/generate", prompt="", keep_alive=0, headers=PINNED))
    assert answer.status == 200
    held = [
        [row["name"] for row in json.loads((await ask(host.url, "GET", "/api/ps")).body)["models"]]
        for host in (one, two)
    ]
    assert held == [[TEXT], []]


async def test_a_model_at_a_host(corral: Corral) -> None:
    """Where it is enabled, for tools that can set no header; the host sees the model's own name."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"), relay={"model_at_host": True})
    answer = await stage.ask(call("/api/generate", f"{TEXT}@gpu2", stream=False))
    assert (answer.get("X-Corral-Host"), json.loads(answer.body)["model"]) == ("gpu2", TEXT)
    pull = json.dumps({"model": f"{TEXT}@gpu3"}).encode()
    for unknown in (
        await stage.ask(call("/api/generate", f"{TEXT}@gpu3")),
        await ask(stage.url, "POST", "/api/show", pull),
        await ask(stage.url, "POST", "/api/pull", pull),
    ):
        assert (unknown.status, json.loads(unknown.body)["error"]) == (
            400,
            "no host is named 'gpu3'; there are: gpu1, gpu2",
        )


async def test_managing_a_model_at_a_host(corral: Corral) -> None:
    """The same name means the same host where models are shown, fetched, copied, pushed and deleted; a header that says otherwise is refused."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two, relay={"model_at_host": True})

    async def asked(
        path: str, method: str = "POST", headers: dict[str, str] | None = None, **body: Any
    ) -> list[str | None]:
        answer = await ask(stage.url, method, path, json.dumps(body).encode(), headers)
        assert answer.status == 200, answer.body
        assert b'"error"' not in answer.body
        return [answer.get("X-Corral-Host") or answer.get("X-Corral-Hosts")]

    assert await asked("/api/show", model=f"{TEXT}@gpu2") == ["gpu2"]
    assert await asked("/api/show", name=f"{TEXT}@gpu2", headers={"X-Corral-Host": "gpu2"}) == ["gpu2"]
    assert await asked("/api/pull", model="qwen2.5:0.5b@gpu2") == ["gpu2"]
    assert await asked("/api/create", **{"model": "mine@gpu2", "from": TEXT, "stream": False}) == ["gpu2"]
    assert await asked("/api/copy", source=f"{TEXT}@gpu2", destination="other") == ["gpu2"]
    assert await asked("/api/push", model=f"{TEXT}@gpu2") == ["gpu2"]
    assert await asked("/api/pull", model=f"{TEXT}@gpu2", headers={"X-Corral-Hosts": "gpu2"}) == ["gpu2"]
    for path, header, value in (
        ("/api/show", "X-Corral-Host", "gpu1"),
        ("/api/pull", "X-Corral-Hosts", "gpu1"),
        ("/api/push", "X-Corral-Hosts", "gpu1,gpu2"),
    ):
        two_words = await ask(stage.url, "POST", path, json.dumps({"model": f"{TEXT}@gpu2"}).encode(), {header: value})
        assert two_words.status == 400
        assert "the model's name ends in @gpu2: one of them has to go" in json.loads(two_words.body)["error"]
    for model in ("qwen2.5:0.5b", "mine", "other"):
        assert [host.store.find(model) is not None for host in (one, two)] == [False, True]
    assert await asked("/api/delete", "DELETE", model=f"{TEXT}@gpu2") == ["gpu2"]
    assert [host.store.find(TEXT) is not None for host in (one, two)] == [True, False]
    gone = await ask(stage.url, "POST", "/api/show", json.dumps({"model": f"{TEXT}@gpu2"}).encode())
    assert (gone.status, json.loads(gone.body)["error"]) == (404, f"model '{TEXT}' not found on host gpu2")


async def test_a_model_at_a_host_where_it_is_not_enabled(corral: Corral) -> None:
    """Is a model that nobody has; where a host has that name, the error says what was probably meant."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"))
    hint = f"; for '{TEXT}' on host gpu2 set X-Corral-Host, or relay.model_at_host = true in Corral's configuration"
    for host, more in (("gpu2", hint), ("gpu3", "")):
        answer = await stage.ask(call("/api/generate", f"{TEXT}@{host}"))
        assert (answer.status, json.loads(answer.body)["error"]) == (404, f"model '{TEXT}@{host}' not found{more}")
    assert (await ask(stage.url, "POST", "/api/show", b'{"model":"llama3.2:1b@gpu2"}')).status == 400


async def test_explaining_a_pin(corral: Corral) -> None:
    """The explainer takes the header too."""
    stage = await corral(simulated("gpu1"), simulated("gpu2"))
    answer = await ask(stage.url, "POST", "/api/route/explain", call("/api/generate").body, PINNED)
    said = json.loads(answer.body)
    assert (said["host"], said["reason"]) == ("gpu2", "pinned")


# -- draining -----------------------------------------------------------------------------------------------------------------


async def test_draining(corral: Corral) -> None:
    """What runs finishes, what is new goes elsewhere; resumed, the host is as any other."""
    one, two = simulated("gpu1"), simulated("gpu2")
    await one.load(TEXT)
    stage = await corral(one, two)
    one.faults.set("hang_before_headers")
    async with stage.begun(call("/api/generate"), "running") as running:
        await stage.row("running", "prefill")
        row = await told(stage, "/api/hosts/gpu1/drain", "POST")
        assert (row["name"], row["draining"], row["leases"]) == ("gpu1", True, 1)
        assert (await stage.ask(call("/api/generate"))).get("X-Corral-Host") == "gpu2"
        one.faults.clear()
        assert (await running.answer()).get("X-Corral-Host") == "gpu1"
    assert await stage.totals("corral_host_draining", "host") == {"gpu1": 1}
    assert not (await told(stage, "/api/hosts/gpu1/resume", "POST"))["draining"]
    assert (await stage.ask(call("/api/generate", headers={"X-Corral-Host": "gpu1"}))).get("X-Corral-Host") == "gpu1"


async def test_the_last_host_drains(corral: Corral) -> None:
    """Then nobody can serve: 503 with the reason, for a pin as well, and not ready."""
    stage = await corral(simulated("gpu1"))
    await told(stage, "/api/hosts/gpu1/drain", "POST")
    for headers in ({}, {"X-Corral-Host": "gpu1"}):
        answer = await stage.ask(call("/api/generate", headers=headers))
        assert (answer.status, "gpu1 is draining" in error_of(answer.body)) == (503, True)
    ready = await ask(stage.url, "GET", "/readyz")
    assert ready.status == 503
    assert json.loads(ready.body)["hosts"] == {"gpu1": {"health": "healthy", "why": "", "draining": True}}


async def test_who_waits_is_served_when_a_host_resumes(corral: Corral) -> None:
    """A queue moves on at once."""
    one, two = simulated("gpu1", TEXT), simulated("gpu2", EMBEDDING, TEXT)
    stage = await corral(one, two)
    await told(stage, "/api/hosts/gpu2/drain", "POST")
    one.faults.set("hang_before_headers")
    async with stage.begun(call("/api/generate"), "first"), stage.begun(call("/api/generate"), "second") as second:
        await stage.row("first", "prefill")
        await stage.row("second", "queued")
        await told(stage, "/api/hosts/gpu2/resume", "POST")
        assert (await second.answer()).get("X-Corral-Host") == "gpu2"
        one.faults.clear()


async def test_a_drained_host_after_a_restart(corral: Corral, file_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It still drains, before the first request; what is not kept says so."""
    one, two = simulated("gpu1"), simulated("gpu2")
    database = {"url": file_url}
    stage = await corral(one, two, database=database)
    assert (await told(stage, "/api/hosts/gpu1/drain", "POST"))["kept"] is True
    await stage.finish()
    again = await corral(one, two, database=database)
    rows = (await told(again, "/api/models/servers"))["servers"]
    assert {row["name"]: row["draining"] for row in rows} == {"gpu1": True, "gpu2": False}
    assert (await again.ask(call("/api/generate"))).get("X-Corral-Host") == "gpu2"
    assert "host gpu1 is draining, as was asked before, or elsewhere" in caplog.messages
    forgetful = await corral(one, two)
    assert (await told(forgetful, "/api/hosts/gpu1/drain", "POST"))["kept"] is False


async def test_a_drained_host_that_vanishes_and_returns(corral: Corral) -> None:
    """It still drains, also at another address: the name was meant."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two)
    await told(stage, "/api/hosts/gpu1/drain", "POST")
    async with simulated("gpu1") as elsewhere:
        for hosts, draining in (
            ([two], {"gpu2": False}),
            ([one, two], {"gpu1": True, "gpu2": False}),
            ([elsewhere, two], {"gpu1": True, "gpu2": False}),
        ):
            stage.gateway.discovery.configure(hosts_of(*hosts))
            await stage.gateway.discovery.step()
            rows = (await told(stage, "/api/models/servers"))["servers"]
            assert {row["name"]: row["draining"] for row in rows} == draining
        stage.gateway.discovery.configure(hosts_of(one, two))
        await stage.gateway.discovery.step()


@pytest.mark.parametrize("what", ["drain", "resume"])
async def test_an_unknown_host_cannot_drain(corral: Corral, what: str) -> None:
    """404, and who there is."""
    stage = await corral(simulated("gpu1"))
    answer = await ask(stage.url, "POST", f"/api/hosts/gpu9/{what}")
    assert (answer.status, "gpu1" in error_of(answer.body)) == (404, True)


# -- hosts that come and go ---------------------------------------------------------------------------------------------------


def hosts_of(*hosts: SimulatedHost) -> Config:
    """A configuration with these hosts."""
    return Config(hosts=tuple(HostConfig(host.name, host.url) for host in hosts))


async def test_a_host_comes(corral: Corral) -> None:
    """It is polled and used, without a restart; who waits is served by it."""
    one = simulated("gpu1")
    stage = await corral(one)
    async with simulated("gpu2") as two:
        one.faults.set("hang_before_headers")
        async with stage.begun(call("/api/generate"), "first"), stage.begun(call("/api/generate"), "second") as second:
            await stage.row("first", "prefill")
            await stage.row("second", "queued")
            stage.gateway.discovery.configure(hosts_of(one, two))
            await stage.gateway.discovery.step()
            assert (await second.answer()).get("X-Corral-Host") == "gpu2"
            one.faults.clear()
        assert [row["name"] for row in (await told(stage, "/api/models/servers"))["servers"]] == ["gpu1", "gpu2"]
        stage.gateway.discovery.configure(hosts_of(one))
        await stage.gateway.discovery.step()


async def test_a_host_goes(corral: Corral) -> None:
    """What runs there finishes; nothing new goes there, nothing polls it, no connection to it is kept."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two)
    await stage.ask(call("/api/generate", headers=PINNED))
    two.faults.set("hang_before_headers")
    async with stage.begun(call("/api/generate", headers=PINNED), "running") as running:
        await stage.row("running", "prefill")
        stage.gateway.discovery.configure(hosts_of(one))
        await stage.gateway.discovery.step()
        assert [row["name"] for row in (await told(stage, "/api/models/servers"))["servers"]] == ["gpu1"]
        assert (await stage.ask(call("/api/generate"))).get("X-Corral-Host") == "gpu1"
        assert (await stage.ask(call("/api/generate", headers=PINNED))).status == 400
        two.faults.clear()
        assert (await running.answer()).get("X-Corral-Host") == "gpu2"
    assert (await stage.records.of("running")).outcome == "ok"
    assert [task for task in asyncio.all_tasks() if task.get_name() == "poller gpu2"] == []


async def test_a_host_moves(corral: Corral, caplog: pytest.LogCaptureFixture) -> None:
    """Another URL is another host: all that was known of it is forgotten."""
    caplog.set_level(logging.INFO, "gateway.fleet.discovery")
    one, two = simulated("gpu1", TEXT), simulated("gpu2", OTHER)
    stage = await corral(one)
    async with two:
        assert (await stage.ask(call("/api/generate"))).status == 200
        stage.gateway.discovery.configure(Config(hosts=(HostConfig("gpu1", two.url, slots=3),)))
        await stage.gateway.discovery.step()
        assert caplog.messages[-1] == "hosts: changed gpu1 (url, slots)"
        await stage.gateway.poller.first_round(5.0)
        (row,) = (await told(stage, "/api/models/servers"))["servers"]
        assert (row["url"], row["slots"], row["models_loaded"]) == (two.url, 3, [])
        assert (await stage.ask(call("/api/generate"))).status == 404
        assert (await stage.ask(call("/api/generate", OTHER))).status == 200


async def test_all_hosts_go(corral: Corral) -> None:
    """Then nobody can serve, and it is said so."""
    one = simulated("gpu1")
    stage = await corral(one)
    stage.gateway.discovery.configure(Config())
    await stage.gateway.discovery.step()
    assert (await stage.ask(call("/api/generate"))).status == 503
    assert (await ask(stage.url, "GET", "/readyz")).status == 503
    assert (await told(stage, "/api/tags"))["models"] == []


async def test_a_changed_configuration(corral: Corral, tmp_path: Path) -> None:
    """Who may call, where models go and whose account is used are other from the next request on; the prefix is not."""
    one, two = simulated("gpu1"), simulated("gpu2")
    stage = await corral(one, two)
    file = tmp_path / "changing.toml"
    hosts = "".join(f'[[hosts]]\nname = "{host.name}"\nurl = "{host.url}"\n' for host in (one, two))
    file.write_text(hosts, encoding="utf-8")
    stage.gateway.follow(lambda: load(file), file)
    page = {"Origin": "https://chat.example.com"}
    outside = {"Host": "ai.example.com"}

    async def asked() -> list[Any]:
        answers = [
            await ask(stage.url, "POST", "/api/generate", call("/api/generate").body, headers)
            for headers in (page, outside)
        ]
        pulled = await ask(stage.url, "POST", "/api/pull", json.dumps({"model": TEXT}).encode())
        account = await ask(stage.url, "GET", "/api/status")
        below = await ask(stage.url, "GET", "/below/api/version")
        statuses = [answer.status for answer in (*answers, below)]
        return [*statuses, pulled.get("X-Corral-Hosts"), account.get("X-Corral-Host")]

    assert await asked() == [403, 403, 404, "gpu1,gpu2", "gpu1"]
    rule = '[[placement]]\nmodels = ["*"]\nhosts = ["gpu2"]\n'
    http = '[http]\norigins = ["https://chat.example.com"]\nallowed_hosts = ["ai.example.com"]\nprefix = "/below"\n'
    file.write_text(f'account_host = "gpu2"\n{hosts}{rule}{http}', encoding="utf-8")
    stage.gateway.reload()
    assert await asked() == [200, 200, 404, "gpu2", "gpu2"]
    file.write_text(hosts, encoding="utf-8")
    stage.gateway.reload()
    assert await asked() == [403, 403, 404, "gpu1,gpu2", "gpu1"]


async def test_a_changed_file(corral: Corral, tmp_path: Path) -> None:
    """Is read again when it changes, and on the signal."""
    one = simulated("gpu1")
    stage = await corral(one)
    file = tmp_path / "changing.toml"
    text = f'[[hosts]]\nname = "gpu1"\nurl = "{one.url}"\nslots = '
    file.write_text(f"{text}1\n", encoding="utf-8")
    stage.gateway.follow(lambda: load(file), file)
    file.write_text(f"{text}16\n", encoding="utf-8")
    stage.gateway.reload()
    async with asyncio.timeout(5.0):
        while (await told(stage, "/api/models/servers"))["servers"][0]["slots"] != 16:
            continue


# -- a Corral among its own hosts ---------------------------------------------------------------------------------------------


async def polled(*stages: Stage) -> None:
    """Every host has been asked once more, as far as each is asked at all."""
    for stage in stages:
        for name in stage.gateway.fleet.names:
            await stage.gateway.poller._poll(stage.gateway.poller._watches[name], inventory=True)


def health_of(stage: Stage, name: str) -> tuple[str, str]:
    """(health, why) of a host."""
    health = stage.gateway.fleet.view(name, stage.gateway.clock()).health
    return health.state, health.why


async def managed(stage: Stage) -> int:
    """How many jobs a pull, an upload, and a look at the account make in all."""
    digest = hashlib.sha256(b"x").hexdigest()
    await ask(stage.url, "POST", "/api/pull", b'{"model":"smollm2:360m","stream":false}')
    await ask(stage.url, "POST", f"/api/blobs/sha256:{digest}", b"x")
    await ask(stage.url, "POST", "/api/me")
    return len(list(stage.gateway.jobs))


@pytest.mark.parametrize("others", [0, 1])
async def test_a_gateway_that_is_its_own_host(corral: Corral, others: int) -> None:
    """A file or a name server can say so at any time. It is told apart, and nothing is sent round and round, even if there is no other."""
    hosts = [simulated("gpu1")]
    stage = await corral(*hosts)
    known = hosts_of(*hosts[:others]).hosts
    stage.gateway.discovery.configure(Config(hosts=(*known, HostConfig("self", stage.url))))
    await stage.gateway.discovery.step()
    await polled(stage)
    assert health_of(stage, "self") == ("ejected", "it leads back to this Corral itself")
    assert await managed(stage) == 2
    findings = (await told(stage, "/api/models/servers"))["servers"]
    assert [row["why"] for row in findings if row["name"] == "self"] == ["it leads back to this Corral itself"]


async def test_two_gateways_that_are_each_others_hosts(corral: Corral) -> None:
    """Each hears its own name from the other; one that is let go is a host like any again."""
    host = simulated("gpu1")
    one, two = await corral(host), await corral(host)
    for stage, other in ((one, two), (two, one)):
        stage.gateway.discovery.configure(Config(hosts=(*hosts_of(host).hosts, HostConfig("other", other.url))))
        await stage.gateway.discovery.step()
    await polled(one, two, one)
    assert health_of(one, "other") == health_of(two, "other") == ("ejected", "it leads back to this Corral itself")
    assert (await managed(one), await managed(two)) == (2, 2)
    two.gateway.discovery.configure(hosts_of(host))
    await two.gateway.discovery.step()
    await polled(two, one)
    assert health_of(one, "other") == ("healthy", "")
