"""The composition root: starting, stopping, and what holds for the gateway as a whole."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway, running
from gateway.config import Config
from gateway.dialects import usage
from gateway.dialects.endpoints import ENDPOINTS
from tests.builders import EMBEDDING, PATHS, TEXT, call, config, simulated
from tests.contract.raw import ask
from tests.sockets import nobody
from tests.stage import Client

CANARY = "canary-7f3a"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the gateway's lines go."""
    return tmp_path / "corral.log"


def before(*hosts: tuple[str, str], log: Path, **sections: Any) -> Config:
    """A configuration for these hosts that logs everything there."""
    return config(hosts, log={"path": str(log), "level": "debug"}, **sections)


@pytest.fixture(autouse=True)
async def nothing_is_left() -> Any:
    """Every test leaves the tasks and the log handlers that there were."""
    tasks, handlers = asyncio.all_tasks(), list(logging.getLogger().handlers)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    assert {task for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task()} == set()
    assert logging.getLogger().handlers == handlers


def text_of(log: Path) -> str:
    """What was written there."""
    return log.read_text(encoding="utf-8")


def listens(address: str, port: int) -> bool:
    """Whether a port is taken."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        return sock.connect_ex((address, port)) == 0


# -- starting and stopping --------------------------------------------------------------------------------------------------------------


async def test_one_after_the_other(log: Path) -> None:
    """A gateway that was stopped leaves its port and its host to the next."""
    async with simulated() as host:
        for _ in range(2):
            async with running(before(("gpu1", host.url), log=log)) as gateway:
                assert (await ask(gateway.url, "GET", "/healthz")).status == 200
        await host.wait_until(lambda: host.ledger.connections_open == 0)


async def test_two_beside_each_other(log: Path) -> None:
    """There is no state but their own."""
    async with (
        simulated() as host,
        running(before(("gpu1", host.url), log=log)) as one,
        running(before(("gpu1", host.url), log=log)) as two,
    ):
        sent = call("/api/generate", tokens=2)
        assert (await ask(one.url, "POST", sent.path, sent.body)).status == 200
        counted = [b'outcome="ok"} 1.0' in (await ask(each.url, "GET", "/metrics")).body for each in (one, two)]
    assert counted == [True, False]


async def test_a_port_that_is_taken(log: Path) -> None:
    """A start that fails closes everything it had opened."""
    async with simulated() as host, running(before(("gpu1", host.url), log=log)) as first:
        made = before(("gpu1", host.url), log=log)
        second = Gateway(dataclasses.replace(made, listen=f"127.0.0.1:{first.address[1]}"))
        with pytest.raises(OSError, match="in use"):
            await second.start()
        assert (await ask(first.url, "GET", "/healthz")).status == 200


async def test_a_start_without_any_host(log: Path) -> None:
    """Does not wait for those who do not answer, and says that it is not ready."""
    with nobody() as url:
        async with running(before(("gpu1", url), log=log)) as gateway:
            assert (await ask(gateway.url, "GET", "/healthz")).status == 200
            ready = await ask(gateway.url, "GET", "/readyz")
            assert ready.status == 503
            told = json.loads(ready.body)
            assert (told["ready"], told["hosts"]["gpu1"]["health"]) == (False, "ejected")
            assert (await ask(gateway.url, "GET", "/api/version")).status == 503


async def test_ipv6(log: Path) -> None:
    """The URL can be used."""
    async with simulated() as host:
        made = dataclasses.replace(before(("gpu1", host.url), log=log), listen="[::1]:0")
        try:
            async with running(made) as gateway:
                assert gateway.url == f"http://[::1]:{gateway.address[1]}"
                assert listens(*gateway.address)
        except OSError:
            pytest.skip("no IPv6 on loopback")


async def test_records_are_kept_for_tests_only(log: Path) -> None:
    """From when somebody asks for them."""
    async with simulated() as host, running(before(("gpu1", host.url), log=log)) as gateway:
        sent = call("/api/generate", tokens=2)
        await ask(gateway.url, "POST", sent.path, sent.body)
        assert gateway.records is None
        gateway.records = []
        await ask(gateway.url, "POST", sent.path, sent.body)
        assert [record.outcome for record in gateway.records] == ["ok"]


async def test_a_seed_makes_the_same_choices(log: Path) -> None:
    """Among equal hosts; but nobody who knows the seed, or has found out, can tell an id beforehand: answers are read by them."""
    async with simulated("a") as a, simulated("b") as b:
        chosen = []
        for _ in range(2):
            async with running(before(("a", a.url), ("b", b.url), log=log), seed=7) as gateway:
                sent = call("/api/generate", tokens=1)
                answer = await ask(gateway.url, "POST", sent.path, sent.body)
                chosen.append((answer.get("X-Corral-Host"), str(answer.get("X-Corral-Generation"))[11:]))
    (first, id_), (second, another) = chosen
    assert first == second
    assert id_ != another


# -- routes -----------------------------------------------------------------------------------------------------------------------------

READS = {
    "/": "text/plain; charset=utf-8",
    "/api/version": "application/json; charset=utf-8",
    "/api/tags": "application/json; charset=utf-8",
    "/api/ps": "application/json; charset=utf-8",
    "/v1/models": "application/json",
    f"/v1/models/{TEXT}": "application/json",
    "/api/generations": "application/json; charset=utf-8",
    "/healthz": "text/plain; charset=utf-8",
    "/readyz": "application/json; charset=utf-8",
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
}


async def test_every_read(log: Path) -> None:
    """Answers at once, in its type, and is counted."""
    async with simulated() as host, running(before(("gpu1", host.url), log=log)) as gateway:
        for path, content_type in READS.items():
            answer = await ask(gateway.url, "GET", path)
            assert (answer.status, answer.get("Content-Type")) == (200, content_type)
        text = (await ask(gateway.url, "GET", "/metrics")).body.decode()
        assert (await ask(gateway.url, "GET", "/nope")).status == 404
        assert (await ask(gateway.url, "DELETE", "/api/tags")).status == 405
    for path in READS:
        route = "/v1/models/{model}" if path.startswith("/v1/models/") else path
        assert f'corral_http_responses_total{{route="{route}",code="200"}}' in text


async def test_every_inference_path(log: Path) -> None:
    """Is served."""
    async with simulated() as host, running(before(("gpu1", host.url), log=log)) as gateway:
        for path in ENDPOINTS:
            sent = call(path, tokens=1)
            assert (await ask(gateway.url, "POST", path, sent.body, sent.headers)).status == 200


# -- what must not get out --------------------------------------------------------------------------------------------------------------


async def test_no_prompt_and_no_credential_gets_out(log: Path) -> None:
    """Neither in a log line nor in a metric, whatever is asked and however it ends; nor do credentials reach a host."""
    secrets = {"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY, "Cookie": f"a={CANARY}"}
    async with simulated() as host, running(before(("gpu1", host.url), log=log)) as gateway:
        for path in PATHS:
            for stream in (False, True):
                sent = call(path, stream=stream, prompt=CANARY, tokens=2)
                await ask(gateway.url, "POST", path, sent.body, sent.headers | secrets)
        for fault in ("error_mid_stream", "reset_before_headers", "load_error", "garbage"):
            host.faults.set(fault, times=1)
            sent = call("/api/chat", prompt=CANARY, tokens=3)
            await ask(gateway.url, "POST", sent.path, sent.body, secrets)
        for body in (
            f'{{"model": "{TEXT}", "prompt": "{CANARY}"',
            f'["{CANARY}"]',
            f'{{"model": 5, "prompt": "{CANARY}"}}',
        ):
            assert (await ask(gateway.url, "POST", "/api/generate", body.encode())).status == 400
        sent = call("/api/chat", EMBEDDING, prompt=CANARY)
        assert (await ask(gateway.url, "POST", sent.path, sent.body)).status == 400
        await ask(gateway.url, "POST", "/api/route/explain", sent.body)
        await ask(gateway.url, "GET", f"/{CANARY}?{CANARY}={CANARY}")
        metrics = (await ask(gateway.url, "GET", "/metrics")).body.decode()
        heads = [header for received in host.ledger.received for header in received.headers]
        assert CANARY.encode() in host.ledger.last_body, "the prompt itself arrives"
    written = text_of(log)
    assert written.count('"event":"generation"') >= 2 * len(PATHS) + 5
    assert CANARY not in written
    assert CANARY not in metrics
    assert CANARY not in str(heads)


async def test_a_defect_after_the_first_byte(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks off the one answer that it spoils, for a second on the same connection would be taken for the next one's; the log has it."""

    def defective(_tail: bytes) -> Any:
        raise RuntimeError("a defect")

    async with simulated() as host, running(before(("gpu1", host.url), log=log)) as gateway:
        monkeypatch.setattr(usage, "_decode_final", defective)
        sent = call("/api/generate", stream=False)
        for version in ("1.0", "1.1"):
            async with Client.to(gateway.url) as client:
                head = f"POST {sent.path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(sent.body)}\r\n\r\n"
                await client.write(head.encode() + sent.body)
                got = b""
                with contextlib.suppress(ConnectionError):
                    async with asyncio.timeout(5):
                        while data := await client._reader.read(65536):
                            got += data
            assert got.count(b"HTTP/1.") <= 1
            assert b" 500 " not in got
        monkeypatch.undo()
        assert (await ask(gateway.url, "POST", sent.path, sent.body)).status == 200
    assert text_of(log).count("RuntimeError: a defect") == 2
