"""The command line, in real processes: what each command prints, how it ends, and with which exit code."""

import asyncio
import contextlib
import json
import os
import shlex
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.demo import demo
from gateway.tasks import pause
from simulator.__main__ import main as simulate
from tests.builders import OTHER, TEXT, call, simulated
from tests.contract.raw import Connection, ask
from tests.processes import ROOT, SECONDS, answers, corral, program, python
from tests.sockets import LOOK_SECONDS, listening, nobody, saying

ANY = ("--listen", "127.0.0.1:0")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the tester's own configuration is read."""
    monkeypatch.chdir(tmp_path)
    for name in ("CORRAL_CONFIG", "CORRAL_HOSTS", "CORRAL_LISTEN"):
        monkeypatch.delenv(name, raising=False)


# -- usage ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["serve", "--help"],
        ["check", "--help"],
        ["demo", "--help"],
        ["top", "--help"],
        ["status", "--help"],
        ["--version"],
    ],
)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Is there for each command, and is no error."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "corral" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sevre"],
        ["serve", "--port", "1"],
        ["check", "extra"],
        ["top", "--interval", "0"],
        ["top", "--interval", "x"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Is told with the usage and in words of ours, and exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "usage: corral" in said
    assert "invalid _" not in said, "a function's name"


@pytest.mark.parametrize(
    ("arguments", "code", "spared"),
    [
        (["--version"], 0, {"asyncio", "aiohttp", "sqlalchemy", "gateway.app"}),
        (["status", "--gateway", "http://127.0.0.1:1"], 2, {"sqlalchemy", "alembic", "yaml", "gateway.app"}),
    ],
)
async def test_what_a_command_does_not_load(tmp_path: Path, arguments: list[str], code: int, spared: set[str]) -> None:
    """A script asks often, and for little: what only a gateway needs costs a second."""
    calling = (
        "import sys, gateway.cli\n"
        "try: code = gateway.cli.main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "print('loaded:', *sys.modules)\n"
        "sys.exit(code)"
    )
    async with python(tmp_path, "-c", calling, *arguments) as process:
        ended = await process.ended()
        loaded = set(process.lines[-1].split())
    assert ended[0] == code
    assert "gateway.cli" in loaded
    assert loaded & spared == set()


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no hosts configured"),
        (["--host", "gpu1=ftp://x"], "host 'gpu1'"),
        (["--host", "gpu1=http://[::1"], "http://[::1"),
        (["--host", "gpu1=http://x", "--listen", "here"], "listen = 'here'"),
        (["--config", "nope.toml"], "cannot read nope.toml"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    command: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is told in words, with exit code 1 and no traceback."""
    assert main([command, *arguments]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("corral: ")
    assert words in said.err
    assert said.out == ""


# -- check ----------------------------------------------------------------------------------------------------------------------------


async def test_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints the effective configuration, then a line for each host and the database; one that fails is an exit code of 1."""
    monkeypatch.setenv("CORRAL_DATABASE_URL", "postgresql://corral:hush-hush@127.0.0.1:1/corral")
    async with simulated(version="0.33.7") as host:
        await host.load(TEXT)
        good = ["check", "--host", f"gpu1={host.url}"]
        assert await asyncio.to_thread(main, good) == 1
        lost = capsys.readouterr().out
        monkeypatch.setenv("CORRAL_DATABASE_URL", "none")
        assert await asyncio.to_thread(main, good) == 0
        text = capsys.readouterr().out
        with nobody() as url:
            assert await asyncio.to_thread(main, [*good, "--host", f"gpu2={url}"]) == 1
            both = capsys.readouterr().out
    configured, end = json.JSONDecoder().raw_decode(text)
    (told,) = configured["hosts"]
    assert (told["name"], told["url"], told["slots"], told["tags"]) == ("gpu1", host.url, 0, [])
    assert configured["queue"] == {
        "limit": 512,
        "per_principal": 0,
        "deadline_seconds": 0.0,
        "background": True,
        "background_prompts": [],
    }
    line, kept, access = text[end:].split("\n")[1:-1]
    assert kept == "database     none: nothing is kept"
    assert access.split(maxsplit=5) == ["access", "without", "a", "key,", "127.0.0.1:11434", "may do everything"]
    assert "FAILED: the database is not available: [Errno 111]" in lost
    assert "postgresql://corral:***@127.0.0.1:1/corral" in lost
    assert "hush" not in lost
    assert line.split() == f"gpu1 {host.url} ok: Ollama 0.33.7, 4 models, loaded: {TEXT}".split()
    first, second, *_ = both[both.index("\n}\n") + 3 :].splitlines()
    assert " ok: Ollama 0.33.7" in first
    assert second.startswith("gpu2 ")
    assert "FAILED: cannot connect" in second


def test_check_hides_headers_of_hosts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be secrets; the variables that they come from are none."""
    monkeypatch.setenv("CORRAL_DATABASE_URL", "none")
    monkeypatch.setenv("GPU1_TOKEN", "Bearer of-the-host")
    file = tmp_path / "corral.toml"
    file.write_text(
        '[[hosts]]\nname = "gpu1"\nurl = "http://127.0.0.1:9"\n'
        'headers = { X-Team = "of-a-team" }\nheaders_env = { Authorization = "GPU1_TOKEN" }\n'
        '[discovery]\nsecrets = { OTHER = "of-others" }\n',
        encoding="utf-8",
    )
    main(["check", "--config", str(file)])
    text = capsys.readouterr().out
    (host,) = json.JSONDecoder().raw_decode(text)[0]["hosts"]
    assert host["headers"] == {"X-Team": "(not shown)", "Authorization": "(not shown)"}
    assert host["headers_env"] == {"Authorization": "GPU1_TOKEN"}
    assert "of-the-host" not in text
    assert "of-a-team" not in text
    assert "of-others" not in text


def test_certificates_are_looked_at_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A command that needs them fails at once, and says which."""
    file = tmp_path / "corral.toml"
    file.write_text('[[hosts]]\nname = "gpu1"\nurl = "https://127.0.0.1:9"\nca = "/nowhere.pem"\n', encoding="utf-8")
    for command in ("check", "serve"):
        assert main([command, "--config", str(file)]) == 1
        assert "host 'gpu1': ca = '/nowhere.pem': No such file or directory" in capsys.readouterr().err


def test_check_says_who_may_what_where(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For every place, and what is not there."""
    monkeypatch.setenv("CORRAL_DATABASE_URL", "none")
    monkeypatch.setenv("CORRAL_ADMIN_LISTEN", "127.0.0.1:2")
    main(["check", "--host", "gpu1=http://127.0.0.1:9", "--listen", ":1, unix:/run/corral.sock"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("access ")]
    alone = "; metrics, hosts and management are at 127.0.0.1:2 alone"
    may = ["may look at the fleet and use every model, but change nothing and keep no sessions" + alone]
    may += ["may do everything" + alone, "may do everything"]
    for line, place, words in zip(lines, ("0.0.0.0:1", "unix:/run/corral.sock", "127.0.0.1:2"), may, strict=True):
        assert line.split(maxsplit=5) == ["access", "without", "a", "key,", place, words]


async def test_check_of_what_is_kept_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what a start would do for each pinned and each warm model, and fails for what cannot be."""
    async with simulated("gpu1", TEXT, OTHER) as one, simulated("gpu2", OTHER) as two:
        await one.load(TEXT)
        file = tmp_path / "corral.toml"
        file.write_text(
            f'pin = ["{TEXT}@gpu1", "{OTHER}@gpu1", "{TEXT}@gpu2"]\n[database]\nurl = "none"\n'
            f'[[hosts]]\nname = "gpu1"\nurl = "{one.url}"\nvram_bytes = 1000000000\n'
            f'[[hosts]]\nname = "gpu2"\nurl = "{two.url}"\n'
            f'[[warm]]\nmodel = "{OTHER}"\ncopies = 2\n[[warm]]\nmodel = "{TEXT}"\ncopies = 2\n'
        )
        assert await asyncio.to_thread(main, ["check", "--config", str(file)]) == 1
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    told = [(of, words) for kind, of, words in (line for line in lines if line[:1] in (["pin"], ["warm"]))]
    assert told == [
        (f"{OTHER}@gpu1", "ok: it is not loaded; corral serve loads it, 1.3 GB on disk"),
        (f"{TEXT}@gpu1", "ok: it is loaded, and is told to stay"),
        ("gpu1", "FAILED: 1.4 GB are pinned to 1.0 GB"),
        (f"{TEXT}@gpu2", "FAILED: the host has not got it: pull it there"),
        (OTHER, "ok: 0 of 2 copies are loaded, 2 hosts with it on disk"),
        (TEXT, "FAILED: 1 of 2 copies are loaded, 1 host with it on disk"),
    ]


async def test_check_of_what_is_kept_warm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same of copies."""
    async with simulated("gpu1", TEXT, OTHER) as one, simulated("gpu2", OTHER) as two:
        await one.load(OTHER)
        file = tmp_path / "corral.toml"
        hosts = f'[[hosts]]\nname = "gpu1"\nurl = "{one.url}"\n[[hosts]]\nname = "gpu2"\nurl = "{two.url}"\n'
        for model, well, words in (
            (OTHER, 0, "ok: 1 of 2 copies are loaded, 2 hosts with it on disk"),
            (TEXT, 1, "FAILED: 0 of 2 copies are loaded, 1 host with it on disk"),
        ):
            file.write_text(f'[database]\nurl = "none"\n{hosts}[[warm]]\nmodel = "{model}"\ncopies = 2\n')
            assert await asyncio.to_thread(main, ["check", "--config", str(file)]) == well
            assert f"warm         {model:36} {words}\n" in capsys.readouterr().out


def test_check_where_serve_would_not_start(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log that cannot be written; a source of hosts that is not there is told once and makes an exit code of 1 as well."""
    monkeypatch.setenv("CORRAL_DATABASE_URL", "none")
    monkeypatch.setenv("CORRAL_LOG_PATH", str(tmp_path / "nowhere" / "corral.log"))
    monkeypatch.setenv("CORRAL_DISCOVERY_FILES", "hosts.json")
    with nobody() as url:
        assert main(["check", "--host", f"gpu1={url}"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split() == f"log {tmp_path}/nowhere/corral.log FAILED: No such file or directory".split()
    assert caplog.messages == ["hosts.json tells no hosts: No such file or directory"]


def test_check_leaves_no_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who checks may be another user than who serves."""
    path = tmp_path / "corral.log"
    monkeypatch.setenv("CORRAL_DATABASE_URL", "none")
    monkeypatch.setenv("CORRAL_LOG_PATH", str(path))
    with nobody() as url:
        main(["check", "--host", f"gpu1={url}"])
        assert not path.exists()
        path.write_text("before", encoding="utf-8")
        main(["check", "--host", f"gpu1={url}"])
    assert path.read_text(encoding="utf-8") == "before"
    assert "log.path" not in capsys.readouterr().out


# -- serve ----------------------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def streaming(url: str) -> AsyncIterator[Connection]:
    """A stream of 40 tokens through a gateway that has begun."""
    sent = call("/api/generate", tokens=40)
    async with Connection.to(url) as client:
        await client.send("POST", sent.path, sent.body)
        await client.head()
        await client.chunk()
        yield client


async def rest(client: Connection) -> list[Any]:
    """The rest of a stream, line by line."""
    body = b""
    while (chunk := await client.chunk()) is not None:
        body += chunk
    return [json.loads(line) for line in body.splitlines()]


async def test_serving(tmp_path: Path) -> None:
    """It answers, says so in its log, lets a running stream finish at SIGTERM while it takes nothing new, and exits with 0."""
    async with simulated(tokens_per_second=100.0) as host:
        async with corral(tmp_path, "serve", *ANY, "--host", f"gpu1={host.url}") as process:
            url = await process.listens()
            assert json.loads(process.lines[-1])["event"] == "message"
            assert (await ask(url, "GET", "/")).body == b"Ollama is running"
            async with streaming(url) as client:
                process.signal()
                await process.line("stopping: 1 generation in flight")
                assert not await answers(url)
                lines = await rest(client)
            assert lines[-1]["done_reason"] == "length"
            assert await process.ended() == (0, "")
        assert host.ledger.completed == 1
        record = next(line for line in map(json.loads, process.lines) if line["event"] == "generation")
        assert (record["outcome"], record["usage"]["output_tokens"]) == ("ok", 40)


async def test_a_second_signal(tmp_path: Path) -> None:
    """Ends the grace period: what runs gets its last words, the host is freed, and the exit code is still 0."""
    async with simulated() as host:
        host.faults.set("hang_mid_stream", after_chunks=2)
        async with corral(tmp_path, "serve", *ANY, "--host", f"gpu1={host.url}") as process:
            url = await process.listens()
            async with streaming(url) as client:
                process.signal()
                await process.line("stopping: 1 generation in flight")
                process.signal()
                await process.line("cut 1 generation at a second signal, and 0 jobs")
                lines = await rest(client)
            assert lines[-1] == {"error": "the gateway is shutting down"}
            await host.wait_until(lambda: host.ledger.in_flight == 0)
            assert await process.ended() == (0, "")


async def test_a_grace_period_that_is_over(tmp_path: Path) -> None:
    """The same by itself; and Ctrl-C is as good as SIGTERM."""
    async with simulated() as host:
        host.faults.set("hang_mid_stream", after_chunks=2)
        grace = {"CORRAL_SHUTDOWN_GRACE_SECONDS": "0.1"}
        async with corral(tmp_path, "serve", *ANY, "--host", f"gpu1={host.url}", **grace) as process:
            url = await process.listens()
            async with streaming(url) as client:
                process.interrupt()
                lines = await rest(client)
            assert lines[-1] == {"error": "the gateway is shutting down"}
            await process.line("cut 1 generation that outlasted the grace period")
            assert await process.ended() == (0, "")


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """By an Ollama, by a Corral, or by anything else: what to do about it is said, and the exit code is 1."""
    async with simulated() as host, listening(saying(b"no HTTP\r\n")) as url:
        hosts = ("--host", "gpu1=http://127.0.0.1:9")
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(corral(tmp_path, "serve", *ANY, *hosts))
            first = await running.listens()
            cases = {
                host.url: "An Ollama answers there",
                first: "A Corral answers there already",
                url: "Listen elsewhere: corral serve --listen",
            }
            processes = [
                await stack.enter_async_context(
                    corral(tmp_path, "serve", "--listen", taken.removeprefix("http://"), *hosts)
                )
                for taken in cases
            ]
            for process, words in zip(processes, cases.values(), strict=True):
                code, errors = await process.ended()
                assert code == 1
                assert errors.startswith("corral: cannot listen on 127.0.0.1:")
                assert words in errors
                assert "Traceback" not in errors
            assert await answers(first)


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        pytest.param(["--listen", "203.0.113.1:0"], {}, "cannot listen on 203.0.113.1:0", id="not our address"),
        pytest.param(list(ANY), {"CORRAL_LOG_PATH": "nowhere/corral.log"}, "nowhere/corral.log", id="no such log"),
    ],
)
async def test_what_cannot_be_opened(tmp_path: Path, arguments: list[str], environ: dict[str, str], words: str) -> None:
    """Is named, with exit code 1 and no traceback."""
    host = ("--host", "gpu1=http://127.0.0.1:1")
    async with corral(tmp_path, "serve", *arguments, *host, **environ) as process:
        code, errors = await process.ended()
    assert code == 1
    assert words in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", [("check", "--host", "gpu1=http://127.0.0.1:1"), ("export", "--csv", "-")])
async def test_nobody_reads_on(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Who has read enough, as `head` has, gets no traceback for it."""
    url = f"sqlite:///{tmp_path}/corral.db"
    async with corral(tmp_path, "db", "migrate", "--database", url) as made:
        assert (await made.ended())[0] == 0
    reading, writing = os.pipe()
    os.close(reading)
    environ = os.environ | {"PYTHONPATH": str(ROOT), "CORRAL_DATABASE_URL": url}
    command = [sys.executable, "-m", "gateway", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environ, stdout=writing, stderr=PIPE)
    os.close(writing)
    _, said = await process.communicate()
    assert "Traceback" not in said.decode()
    assert "Broken pipe" not in said.decode()
    assert process.returncode == 141


# -- simulate and demo ------------------------------------------------------------------------------------------------------------------


async def test_simulate(tmp_path: Path) -> None:
    """Prints where its hosts are, and SIGTERM to it alone ends them all."""
    async with corral(tmp_path, "simulate", "--hosts", "2", "--base-port", "0") as process:
        urls = [(await process.line(rf"^{name} (http://\S+)"))[1] for name in ("sim1", "sim2")]
        for url in urls:
            assert (await ask(url, "GET", "/")).body == b"Ollama is running"
        process.signal()
        await process.gone()
        assert [await answers(url) for url in urls] == [False, False]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hosts", "0"],
        ["--hosts", "two"],
        ["--parallel", "0"],
        ["--max-loaded", "-1"],
        ["--max-queue", "-1"],
        ["--tokens-per-second", "0"],
        ["--load-seconds-per-gb", "-1"],
        ["--vram", "nan"],
        ["--base-port", "65536"],
        ["--base-port", "65535", "--hosts", "2"],
    ],
)
def test_simulate_with_what_no_host_can_have(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Is told with the usage and in words of ours, and exit code 2."""
    with pytest.raises(SystemExit) as caught:
        simulate(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "usage: corral simulate" in said
    assert "invalid _" not in said, "a function's name"


async def test_simulate_has_options_of_its_own(tmp_path: Path) -> None:
    """And its own exit codes."""
    async with (
        corral(tmp_path, "simulate", "--help") as told,
        corral(tmp_path, "simulate", "--hosts", "many") as wrong,
    ):
        assert (await told.ended())[0] == 0
        assert "--tokens-per-second" in "".join(told.lines)
        assert (await wrong.ended())[0] == 2


async def test_the_demo(tmp_path: Path) -> None:
    """Three hosts and the gateway, where it says; Ctrl-C ends all of it."""
    async with listening(saying(b"no HTTP\r\n")) as taken, contextlib.AsyncExitStack() as stack:
        (tmp_path / "corral.toml").write_text("not even TOML", encoding="utf-8")  # the demo is the same everywhere
        process = await stack.enter_async_context(
            corral(tmp_path, "demo", "--app", "", "--listen", taken.removeprefix("http://"))
        )
        promised = await process.line(r"about to listen on (http://\S+) for 3 simulated hosts: (.*)")
        hosts = [row.split()[1] for row in promised[2].split(", ")]
        url = await process.listens()
        assert url == promised[1] != taken, "another port where that is taken"
        models = {row["name"] for row in json.loads((await ask(url, "GET", "/api/tags")).body)["models"]}
        assert models == {"llama3.2:1b", TEXT}
        sent = call("/api/chat", "llama3.2:1b", tokens=3)
        answer = await ask(url, "POST", sent.path, sent.body)
        assert json.loads(answer.body.splitlines()[-1])["done"] is True
        assert [await answers(host) for host in hosts] == [True] * 3
        process.interrupt()
        code, errors = await process.ended()
        assert (code, errors) == (0, "")
        assert [await answers(host) for host in [*hosts, url]] == [False] * 4


async def test_what_the_demo_says_to_try(tmp_path: Path) -> None:
    """Each of its lines that needs no other program works as it stands, in their order; only that answers are short here."""
    short = {"options": {"num_predict": 3}}
    async with corral(tmp_path, "demo", "--app", "", "--listen", "127.0.0.1:0") as process:
        url = await process.listens()
        tried = []
        for line in process.lines:
            command = shlex.split(line, comments=True)
            if command[:1] == ["curl"]:
                path = command[1].removeprefix(url)
                if "/ID/" in path:
                    path = path.replace("ID", json.loads(tried[-1].body)["id"])
                body = json.loads(command[3]) if command[2:3] == ["-d"] else None
                if "chat" in path and body is not None:
                    body |= (
                        {"participants": [each | short for each in body["participants"]]} if "topic" in body else short
                    )
                tried.append(
                    await ask(url, "POST" if body else "GET", path, json.dumps(body).encode() if body else b"")
                )
            elif command[1:4] == ["-m", "gateway", "top"]:
                async with program(tmp_path, *command) as top:
                    code, _ = await top.ended()
                    assert (code, "sim1" in "".join(top.lines)) == (0, True)
        assert [answer.status in (200, 201) for answer in tried] == [True] * 8
        process.signal()
        await process.gone()


async def test_the_demo_is_stopped(tmp_path: Path) -> None:
    """SIGTERM to the gateway alone ends its hosts too; and every address that it prints can be used."""
    async with corral(tmp_path, "demo", "--app", "", "--listen", "[::1]:0") as process:
        promised = await process.line(r"about to listen on (http://\S+) for 3 simulated hosts: (.*)")
        hosts = [row.split()[1] for row in promised[2].split(", ")]
        assert await process.listens() == promised[1]
        process.signal()
        assert await process.ended() == (0, "")
        assert [await answers(host) for host in hosts] == [False] * 3


async def test_the_demo_has_the_app(tmp_path: Path) -> None:
    """Where it says, at another port where that is taken; it knows the gateway, and ends with it."""
    async with listening(saying(b"no HTTP\r\n")) as taken, contextlib.AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            corral(tmp_path, "demo", "--listen", "127.0.0.1:0", "--app", taken.removeprefix("http://"))
        )
        app = (await process.line(r"The app is about to be at (http://[^:]+:\d+):"))[1]
        assert app != taken
        url = await process.listens()
        async with asyncio.timeout(SECONDS):
            while not await answers(app):  # it begins to listen some seconds later
                await pause(LOOK_SECONDS)
        assert json.loads((await ask(app, "GET", "/healthz")).body) == {"status": "ok", "gateway": url}
        process.interrupt()
        assert (await process.ended())[0] == 0
        assert [await answers(one) for one in (app, url)] == [False] * 2


def test_the_demo_without_the_app(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how to get it, and goes on."""
    monkeypatch.setitem(sys.modules, "streamlit", None)  # as Python has it of what cannot be imported
    assert demo("127.0.0.1:0", "127.0.0.1:0", lambda config: len(config.hosts)) == 3
    assert "pip install '.[dashboard]'" in capsys.readouterr().out
