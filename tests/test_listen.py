"""Why a port cannot be listened on, and what to do about it."""

import asyncio
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.app import running
from gateway.listen import explain_taken
from gateway.places import split_listen
from tests.builders import config, simulated
from tests.sockets import http, listening, nobody, saying

PROC = Path("/proc/net/tcp").exists()


async def explained(url: str, address: str = "") -> tuple[str, int]:
    """What is said of the port of a URL, and the port; asked from another thread, for the answer comes from this loop."""
    parts = urlsplit(url)
    assert parts.port is not None
    return await asyncio.to_thread(explain_taken, address or str(parts.hostname), parts.port), parts.port


def suggested(text: str) -> list[tuple[str, int]]:
    """Every address that a message says to listen on; each is one that can be written so."""
    return [split_listen(found) for found in re.findall(r"--listen (\S+)", text)]


async def test_an_ollama() -> None:
    """It can be made a host, or moved; both ways are shown with the right ports."""
    async with simulated() as host:
        text, port = await explained(host.url)
    assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in text
    assert "An Ollama answers there" in text
    (_, other), again = suggested(text)
    assert (port < other, again) == (True, ("127.0.0.1", port))
    assert f"--host local=http://127.0.0.1:{port}\n" in text
    assert f"OLLAMA_HOST=127.0.0.1:{other} ollama serve" in text
    assert text.endswith(f"--host local=http://127.0.0.1:{other}")


async def test_a_corral() -> None:
    """It is there already, and no host for another."""
    async with simulated() as host, running(config([("gpu1", host.url)], log={"path": os.devnull})) as gateway:
        text, _ = await explained(gateway.url)
    assert "A Corral answers there already: use it, or listen elsewhere" in text


ANYTHING = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another server": http(b"<html>", 200, "text/html"),
    "an error": http(b"Ollama is running?", 503),
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ANYTHING.values(), ids=ANYTHING)
async def test_anything_else(answer: bytes) -> None:
    """Another port is suggested."""
    serve = saying(answer)
    if not answer:

        async def serve(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            return

    async with listening(serve) as url:
        text, port = await explained(url)
    ((address, other),) = suggested(text)
    assert (address, other > port) == ("127.0.0.1", True)
    assert "answers there" not in text


@pytest.mark.skipif(not PROC, reason="only Linux tells who holds a port")
async def test_the_holder_is_named() -> None:
    """With its process id."""
    async with simulated() as host:
        text, _ = await explained(host.url)
    assert re.search(rf"taken by \S.* \(pid {os.getpid()}\)\.", text)


async def test_all_addresses() -> None:
    """Whoever wants to listen on all of them asks on loopback who is there."""
    async with simulated() as host:
        text, port = await explained(host.url, "0.0.0.0")
    assert f"cannot listen on 0.0.0.0:{port}" in text
    assert "An Ollama answers there" in text


def test_the_last_port() -> None:
    """There is no port after it to suggest."""
    text = explain_taken("127.0.0.1", 65535)
    assert "65536" not in text


async def test_a_port_that_is_free_again() -> None:
    """Then nobody holds it, and the message still helps."""
    with nobody() as url:
        text, _ = await explained(url)
    assert "the port is taken. Listen elsewhere: corral serve --listen 127.0.0.1:" in text
