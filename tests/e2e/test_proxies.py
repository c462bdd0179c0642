"""Behind real proxies, nginx and HAProxy, as docs/operations.md has them: streams, who the client is, and what happens when it leaves."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.builders import call, simulated
from tests.components import missing, program
from tests.conftest import Corral
from tests.contract.raw import Connection, ask
from tests.sockets import until
from tests.stage import SECONDS, Stage
from tests.tls import Authority

NGINX = """\
{user}daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream corral {{ server {upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://corral;
      {saying}
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""
AS_DOCUMENTED = """\
proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"""
BARE = "proxy_set_header Host 127.0.0.1;"  # as it does for `proxy_pass http://127.0.0.1:11434`
HAPROXY = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{port}
  default_backend corral
backend corral
  server corral {upstream} {saying}
"""


def free() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def nginx() -> str:
    """Its path, which is not on everybody's PATH, or the test ends."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or program("nginx", "nginx")


def haproxy() -> str:
    """Idem."""
    return shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin") or program("haproxy", "haproxy")


@contextlib.asynccontextmanager
async def proxied(found: Callable[[], str], text: str, folder: Path, stage: Stage, saying: str) -> AsyncIterator[str]:
    """The URL of that proxy before a gateway."""
    upstream, port = stage.url.removeprefix("http://").removeprefix("https://"), free()
    user = "user root root; " if os.geteuid() == 0 else ""  # else its worker may not open what is root's alone
    file = folder / "proxy.conf"
    file.write_text(
        text.format(user=user, folder=folder, upstream=upstream, port=port, saying=saying), encoding="utf-8"
    )
    path = found()
    command = (path, "-p", str(folder), "-c", str(file)) if "nginx" in path else (path, "-db", "-f", str(file))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        await until(lambda: process.returncode is not None or listens(port), SECONDS)
        if process.returncode is not None:
            assert process.stderr is not None
            missing(f"a proxy that runs: {(await process.stderr.read()).decode()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def listens(port: int) -> bool:
    """Whether anybody does."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def streamed(url: str, chunks: int) -> None:
    """A stream comes through chunk by chunk."""
    sent = call("/api/generate", tokens=30)
    answer = await ask(url, "POST", sent.path, sent.body, {"X-Forwarded-For": "198.51.100.7"})
    assert answer.status == 200
    assert len(answer.body.splitlines()) == 31
    assert len(answer.chunks) >= chunks


async def left(stage: Stage, url: str) -> None:
    """Who leaves the proxy has left the host."""
    sent = call("/api/generate", tokens=1000, prompt="gone")
    async with Connection.to(url) as client:
        await client.send("POST", sent.path, sent.body, {"X-Corral-Session": "gone"})
        await stage.row("gone", "streaming")
        await client.close()
        record = await stage.records.of("gone")
    assert (record.outcome, record.cancelled_by) == ("cancelled", "client_disconnect")


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix"])
async def test_nginx(corral: Corral, tmp_path: Path, where: str) -> None:
    """As documented: the client is whom nginx saw, not whom the client wrote of, and it is not taken for somebody on this machine."""
    unix = where == "unix"
    listen = f"unix:{tmp_path}/corral.sock" if unix else where
    saying = AS_DOCUMENTED if unix else f"{AS_DOCUMENTED} proxy_bind 127.0.0.9;"  # not the client's address
    trusted = {"trusted_proxies": ("unix", "127.0.0.9")}
    host = simulated(tokens_per_second=100.0)
    stage = await corral(host, listen=listen, admin={"listen": "127.0.0.1:0"}, http=trusted)
    async with proxied(nginx, NGINX, tmp_path, stage, saying) as url:
        await streamed(url, 20)
        await left(stage, url)
        assert (await ask(url, "GET", "/api/tags")).status == 200
        assert (await ask(url, "GET", "/api/sessions")).status == 401
    assert [record.client for record in await stage.records.until(2)] == ["127.0.0.1"] * 2


async def test_nginx_that_says_nothing(corral: Corral, tmp_path: Path) -> None:
    """Its callers look like this machine's, as docs/access.md warns, until there is a key or access.anonymous says otherwise."""
    host = simulated()
    open_, closed = await corral(host), await corral(host, access={"anonymous": "inference"})
    async with proxied(nginx, NGINX, tmp_path, open_, BARE) as url:
        assert (await ask(url, "POST", "/api/hosts/gpu1/resume")).status == 200
    async with proxied(nginx, NGINX, tmp_path, closed, BARE) as url:
        assert (await ask(url, "POST", "/api/hosts/gpu1/resume")).status == 401
        assert (await ask(url, "GET", "/api/tags")).status == 200


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("spoken", ["TLS", "no TLS"])
async def test_haproxy(corral: Corral, tmp_path: Path, version: str, spoken: str) -> None:
    """It tells the client's address, by either version, whatever passes through it."""
    authority = Authority(tmp_path)
    pair = authority.pair("own")
    sections = {"tls": {"cert": pair.cert, "key": pair.key}} if spoken == "TLS" else {}
    http = {"proxy_protocol": True, "trusted_proxies": ("127.0.0.1",)}
    stage = await corral(simulated(tokens_per_second=100.0), admin={"listen": "127.0.0.1:0"}, http=http, **sections)
    tls = authority.client() if sections else None
    async with proxied(haproxy, HAPROXY, tmp_path, stage, version) as url:
        sent = call("/api/generate", tokens=30)
        answer = await ask(url, "POST", sent.path, sent.body, tls=tls)
        assert (answer.status, len(answer.body.splitlines())) == (200, 31)
        assert len(answer.chunks) >= 20
        assert (await ask(url, "GET", "/api/sessions", tls=tls)).status == 401
        if tls is None:
            await left(stage, url)
    assert {record.client for record in await stage.records.until(1)} == {"127.0.0.1"}
