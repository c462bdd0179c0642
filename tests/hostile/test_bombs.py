"""Memory: what is small when it comes and large when it is opened, and what is held in numbers, on a gateway that is a process of its own."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
import zstandard

from tests.builders import TEXT
from tests.contract.raw import Cut, ask
from tests.hostile.siege import FINE, HEAD, chunked, post
from tests.processes import Process, corral
from tests.scripted import Asked, ScriptedHost
from tests.stage import Client

MEGABYTE = 1024 * 1024
MOST_BYTES = 400 * MEGABYTE
"""What the process may have grown by at its peak, whatever was thrown at it: the compiler's and libraries' own pages come to some 100 MB."""

GOOD = TEXT.encode()
WINDOW = zstandard.ZstdCompressionParameters.from_level(1, window_log=23)


def bomb(megabytes: int) -> bytes:
    """So many megabytes of JSON in a few kilobytes of zstd, for whose window of 8 MB whoever opens it needs room."""
    parts = [b'{"model":"%b","x":"' % GOOD, *[b"x" * MEGABYTE] * megabytes, b'"}']
    packing = zstandard.ZstdCompressor(compression_params=WINDOW).compressobj(size=sum(map(len, parts)))
    return b"".join([*map(packing.compress, parts), packing.flush()])


def peak_bytes(process: Process) -> int:
    """The most memory that a process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


BOMBS = {
    "zstd of a gigabyte": [post("/v1/chat/completions", bomb(1000), b"Content-Encoding: zstd")] * 20,
    "zstd just under its limit": [post("/v1/messages", bomb(19), b"Content-Encoding: zstd")] * 20,
    "frames of nothing": [
        post("/v1/messages", zstandard.ZstdCompressor().compress(b"") * 1_000_000, b"Content-Encoding: zstd")
    ],
    "deep lists": [post("/api/chat", b"[" * (4 * MEGABYTE))] * 5,
    "many keys": [
        post("/api/chat", b'{"model":"%b"' % GOOD + b"".join(b',"k%d":0' % at for at in range(300_000)) + b"}")
    ]
    * 3,
    "many messages": [post("/api/chat", b'{"model":"%b","messages":[' % GOOD + b"{}," * MEGABYTE + b"{}]}")] * 5,
    "many parts of a form": [
        post(
            "/v1/audio/transcriptions",
            b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 100_000 + b"--B--\r\n",
            b"Content-Type: multipart/form-data; boundary=B",
        )
    ]
    * 3,
    "half heads": [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: %b\r\n" % (b"y" * 8000) * 7] * 300,
    "half bodies": [post("/api/chat", b"x" * 60_000, b"Content-Length: 60000000", sized=False)] * 300,
    "requests behind a stream": [
        post("/api/generate", b'{"model":"%b","prompt":"slow"}' % GOOD) + post("/api/chat", b"{}") * 20_000
    ]
    * 10,
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells how much memory a process has")
async def test_bombs(tmp_path: Path) -> None:
    """All of them, and the process stays within its bounds and serves on."""
    over = asyncio.Event()

    async def answering(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if b"slow" in asked.body:
            await over.wait()
        writer.write(HEAD + chunked(FINE, b""))

    async with ScriptedHost("gpu1", answering) as host:
        flags = ("serve", "--listen", "127.0.0.1:0", "--host", f"gpu1={host.url}")
        async with corral(tmp_path, *flags, CORRAL_RELAY_BODY_LIMIT_BYTES=str(64 * MEGABYTE)) as process:
            url = await process.listens()
            before = peak_bytes(process)
            try:
                for name, said in BOMBS.items():
                    async with asyncio.timeout(30):
                        await _thrown(url, said, answered=not name.startswith(("half", "requests")))
                    assert peak_bytes(process) - before < MOST_BYTES, name
            finally:
                over.set()
            answer = await ask(url, "POST", "/api/generate", b'{"model":"%b","prompt":"x"}' % GOOD)
            assert (answer.status, answer.body) == (200, FINE)


async def _thrown(url: str, said: list[bytes], *, answered: bool) -> None:
    """All at once; what is ``answered`` is waited for, of the rest that somebody else is."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.to(url)) for _ in said]
        async with asyncio.TaskGroup() as tasks:
            for client, data in zip(clients, said, strict=True):
                tasks.create_task(_one(client, data, answered=answered))
        assert (await ask(url, "GET", "/healthz")).status == 200


async def _one(client: Client, data: bytes, *, answered: bool) -> None:
    with contextlib.suppress(ConnectionError, Cut, TimeoutError):
        async with asyncio.timeout(None if answered else 2):
            await client.write(data)
        if answered:
            assert (await client.answer()).status in (200, 400, 413)
