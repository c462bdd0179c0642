"""Who is measured, and how each is started and asked."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BUILD, HERE, Running, Unavailable, free_port, start

PROXIES = HERE / "proxies"
COMPILED = HERE.parent / "build" / "compiled"
LITELLM = BUILD / "litellm"
LITELLM_VERSION = "1.106.2"  # pinned: a later release on PyPI has been reported as compromised
LITELLM_RECIPE = (
    f"python3 -m venv bench/build/litellm && bench/build/litellm/bin/pip install 'litellm[proxy]=={LITELLM_VERSION}'"
)


@dataclass(frozen=True)
class Contender:
    """A way from the client to the simulated host."""

    name: str
    what: str
    start: Callable[[list[Running]], Running]
    openai: bool = False  # it is asked as an OpenAI server and streams SSE

    def question(self, *, stream: bool, chunks: int = 0, rate: float = 0, silent_ms: int = 0) -> list[str]:
        """The options for `load` that make it ask for such an answer."""
        if self.openai:  # the host's pace is set on the host, see scenarios.tell_host
            message = [{"role": "user", "content": "Say something of an ordinary length."}]
            body = {"model": "bench", "messages": message, "stream": stream, "max_tokens": chunks or 200}
            return [
                *("--path", "/v1/chat/completions"),
                *("--header", "Authorization: Bearer sk-bench"),
                *("--body", json.dumps(body)),
                "--sse",
            ]
        options = {"num_predict": chunks, "rate": rate, "silent_ms": silent_ms} if stream else {"temperature": 0}
        body = {
            "model": "bench:latest",
            "prompt": "Say something of an ordinary length.",
            "stream": stream,
            "options": options,
        }
        return ["--path", "/api/generate", "--body", json.dumps(body)]


def _fill(template: Path, target: Path, **values: object) -> Path:
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    target.write_text(text)
    return target


def nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _start_nginx(hosts: list[Running]) -> Running:
    program = nginx_program()
    if program is None:
        raise Unavailable("nginx is not installed")
    port = free_port()
    config = _fill(PROXIES / "nginx.conf", BUILD / "nginx.conf", DIR=BUILD, PORT=port, UPSTREAM=hosts[0].port)
    user = ["-g", "user root;"] if os.geteuid() == 0 else []  # its temporary files lie in our folder
    command: list[str | Path] = [program, "-p", BUILD, "-c", config, "-e", "stderr", *user]
    return start("nginx", command, port)


def _start_python(name: str, script: str, needs: tuple[str, ...]) -> Callable[[list[Running]], Running]:
    def starter(hosts: list[Running]) -> Running:
        for module in needs:
            if importlib.util.find_spec(module) is None:
                raise Unavailable(f"the package {module} is not installed (pip install -e '.[bench]')")
        port = free_port()
        command: list[str | Path] = [sys.executable, PROXIES / script, str(port), f"http://127.0.0.1:{hosts[0].port}"]
        return start(name, command, port)

    return starter


def _start_litellm(hosts: list[Running]) -> Running:
    program = LITELLM / "bin" / "litellm"
    if not program.exists():
        raise Unavailable(f"LiteLLM is not installed; to include it: {LITELLM_RECIPE}")
    port = free_port()
    config = _fill(PROXIES / "litellm.yaml", BUILD / "litellm.yaml", UPSTREAM=hosts[0].port)
    command: list[str | Path] = [
        program,
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
        "--telemetry",
        "False",
    ]
    at_home = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return start("litellm", command, port, ready_path="/health/liveliness", env=at_home)


def _start_compiled(hosts: list[Running]) -> Running:
    if not COMPILED.is_dir():
        raise Unavailable("there is no compiled build (make compiled)")
    return _start_corral("corral", hosts, {"PYTHONPATH": str(COMPILED)})


def _start_uncompiled(hosts: list[Running]) -> Running:
    return _start_corral("corral-uncompiled", hosts, {"PYTHONPATH": ""})


def _start_keeping(hosts: list[Running]) -> Running:
    if not COMPILED.is_dir():
        raise Unavailable("there is no compiled build (make compiled)")
    database = f"sqlite:///{BUILD}/corral-kept.db"
    return _start_corral("corral-kept", hosts, {"PYTHONPATH": str(COMPILED), "CORRAL_DATABASE_URL": database})


def _start_corral(name: str, hosts: list[Running], env: dict[str, str]) -> Running:
    program = Path(sys.executable).with_name("corral")
    if not program.exists():
        raise Unavailable("the command corral is not installed beside this Python (pip install -e .)")
    port = free_port()
    config, lines = BUILD / f"{name}.toml", BUILD / f"{name}-lines.log"
    lines.unlink(missing_ok=True)
    for old in BUILD.glob(f"{name}.db*"):
        old.unlink()
    named = (
        f'[[hosts]]\nname = "{host.name}"\nurl = "http://127.0.0.1:{host.port}"\nslots = 10000\n\n' for host in hosts
    )
    config.write_text(f'{"".join(named)}[queue]\nlimit = 10000\n\n[log]\nformat = "json"\npath = "{lines}"\n')
    command: list[str | Path] = [program, "serve", "--listen", f"127.0.0.1:{port}"]
    return start(name, command, port, env={"CORRAL_CONFIG": str(config), "CORRAL_DATABASE_URL": "none", **env})


def _no_proxy(hosts: list[Running]) -> Running:
    return hosts[0]


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("direct", "the client on the simulated host, no proxy", _no_proxy),
        Contender("nginx", "one worker, kept-alive upstream, no buffering, no access log", _start_nginx),
        Contender(
            "corral",
            "Corral, compiled, with metrics, records and its log line to a file, and without a database",
            _start_compiled,
        ),
        Contender("corral-kept", "the same, with every request kept in SQLite", _start_keeping),
        Contender("corral-uncompiled", "the same as it is where there is no C compiler", _start_uncompiled),
        Contender(
            "naive",
            "a 40-line aiohttp proxy on uvloop",
            _start_python("naive", "naive_aiohttp.py", ("aiohttp", "uvloop")),
        ),
        Contender(
            "fastapi-httpx",
            "FastAPI, httpx and uvicorn (uvloop, httptools), limits lifted",
            _start_python("fastapi-httpx", "fastapi_httpx.py", ("fastapi", "httpx", "uvicorn")),
        ),
        Contender("litellm", "LiteLLM's proxy, default settings, one worker", _start_litellm, openai=True),
    )
}
