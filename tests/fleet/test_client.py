"""Small calls to a host over real sockets: what it says, and what is wrong when it does not say it."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.fleet.client import ANSWER_LIMIT_BYTES, KEEPALIVE, LINE_LIMIT_BYTES, HostClient, HostError
from gateway.fleet.host import Host
from tests.builders import TEXT, simulated
from tests.sockets import asked, deaf, http, listening, nobody, saying


@pytest.fixture
async def client() -> AsyncIterator[HostClient]:
    """A client that waits for two seconds, and for a tenth of one to connect."""
    made = HostClient(2.0, 1.0)
    yield made
    await made.close()


def at(url: str) -> Host:
    """A host there."""
    return Host("gpu1", url)


async def test_reading_a_host(client: HostClient) -> None:
    """Version, models on disk and models in memory are read as the host tells them."""
    async with simulated(version="0.33.7") as host:
        await host.load(TEXT)
        version, disk, memory = (
            await client.version(at(host.url)),
            await client.available(at(host.url)),
            await client.loaded(at(host.url)),
        )
    assert version == "0.33.7"
    text = next(model for model in disk if model.name == TEXT)
    assert (text.name, text.digest, text.size) == (text.row["name"], text.row["digest"], text.row["size"])
    (held,) = memory
    assert (held.name, held.digest, held.context) == (TEXT, text.digest, held.row["context_length"])
    assert held.size == held.row["size"] > 0
    assert held.expires_at == held.row["expires_at"]


async def test_a_connection_is_kept(client: HostClient) -> None:
    """Polls do not open a connection each."""
    async with simulated() as host:
        for _ in range(3):
            await client.version(at(host.url))
        assert host.ledger.connections_opened == 1


@pytest.mark.parametrize("base", ["", "/", "/ollama", "/ollama/"])
async def test_base_paths(client: HostClient, base: str) -> None:
    """A host may live under a path."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await asked(reader))
        writer.write(http(b'{"version":"1"}'))

    async with listening(serve) as url:
        assert await client.version(at(url + base)) == "1"
    assert heads[0].startswith(b"GET %b/api/version HTTP/1.1\r\n" % base.rstrip("/").encode())


async def test_a_call_for_a_caller(client: HostClient) -> None:
    """The caller's headers and path are sent as they are, and none of ours in the place of one that is missing."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await asked(reader))
        writer.write(http(b"{}"))

    async with listening(serve) as url:
        await client.call(at(url), "POST", "/a%2Fb%3D/?c=%20+", b"x", None, [("X-Odd", "1"), ("X-Odd", "\u00e4")])
    head = heads[0].decode().lower()
    assert head.startswith("post /a%2fb%3d/?c=%20+ http/1.1\r\n")
    assert "x-odd: 1\r\nx-odd: \u00e4\r\n" in head
    assert "content-type" not in head
    assert "user-agent" not in head


# -- what a host may say ------------------------------------------------------------------------------------------------------------

GOOD = {"name": "a:1", "digest": "d" * 64}
NESTED = json.loads("[" * 300 + "]" * 300)
ROWS: dict[str, tuple[Any, list[str]]] = {
    "as usual": ({"models": [GOOD]}, ["a:1"]),
    "none": ({"models": []}, []),
    "null": ({"models": None}, []),
    "no list": ({"models": {"a": 1}}, []),
    "nothing": ({}, []),
    "without a digest": ({"models": [{"name": "b:1"}, GOOD]}, ["a:1"]),
    "with a short digest": ({"models": [{"name": "b:1", "digest": "d"}, GOOD]}, ["a:1"]),
    "without a name": ({"models": [{"digest": "d" * 64}, {"name": "", "digest": "d" * 64}, GOOD]}, ["a:1"]),
    "no objects": ({"models": [1, None, "a", GOOD]}, ["a:1"]),
    "a number for a name": ({"models": [{"name": 5, "digest": "d" * 64}, GOOD]}, ["a:1"]),
    "too deep to be written again": ({"models": [GOOD | {"name": "b:1", "details": NESTED}, GOOD]}, ["a:1"]),
    "numbers beyond all": ({"models": [GOOD | {"size": 1.7e308, "size_vram": -1, "context_length": 2**63}]}, ["a:1"]),
    "numbers that are none": ({"models": [GOOD | {"size": "big", "size_vram": None, "context_length": []}]}, ["a:1"]),
}


@pytest.mark.parametrize(("value", "expected"), ROWS.values(), ids=ROWS)
async def test_rows(client: HostClient, value: Any, expected: list[str]) -> None:
    """A row that clients could not use is left out; a field that is none is zero."""
    async with listening(saying(http(json.dumps(value).encode()))) as url:
        loaded, available = await client.loaded(at(url)), await client.available(at(url))
    assert [model.name for model in loaded] == [model.name for model in available] == expected
    assert all(model.size == model.vram == model.context == 0 for model in loaded)


# -- what goes wrong ----------------------------------------------------------------------------------------------------------------

WRONG = {
    "an error": (http(b"no", 500), "http_error", "/api/version answered 500"),
    "not found": (http(b"404 page not found", 404), "http_error", "answered 404"),
    "a redirect": (http(b"", 301, "text/plain", "Location: /elsewhere"), "http_error", "answered 301"),
    "no JSON": (http(b"<html>"), "protocol_error", "did not answer JSON"),
    "no object": (http(b"[]"), "protocol_error", "did not answer a JSON object"),
    "no HTTP": (b"\x00\x01\x02 nonsense\r\n\r\n", "protocol_error", "/api/version"),
    "too much": (http(b" " * (ANSWER_LIMIT_BYTES + 1)), "protocol_error", "the answer is over"),
}


@pytest.mark.parametrize(("answer", "reason", "words"), WRONG.values(), ids=WRONG)
async def test_wrong_answers(client: HostClient, answer: bytes, reason: str, words: str) -> None:
    """What is no answer is an error with a bounded reason, and the host was reached."""
    async with listening(saying(answer)) as url:
        with pytest.raises(HostError, match=words) as caught:
            await client.version(at(url))
    assert (caught.value.reason, caught.value.unreachable) == (reason, False)


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say half of an answer."""
    await asked(reader)
    writer.write(http(b"{}")[:-1])


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing, for ever."""
    await reader.read()


async def begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer, and say nothing more."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    await reader.read()


async def test_half_an_answer(client: HostClient) -> None:
    """A host that breaks off was reached."""
    async with listening(half) as url:
        with pytest.raises(HostError) as caught:
            await client.version(at(url))
    assert (caught.value.reason, caught.value.unreachable) == ("protocol_error", False)


async def test_silence() -> None:
    """A host that says nothing in time was reached."""
    client = HostClient(0.05, 0.05)
    async with listening(silence) as url:
        with pytest.raises(HostError, match=r"no answer to /api/version within 0\.05 s") as caught:
            await client.version(at(url))
    await client.close()
    assert (caught.value.reason, caught.value.unreachable) == ("timeout", False)


async def test_a_call_may_have_its_own_patience(client: HostClient) -> None:
    """An unload may take longer than a poll, or a call less."""
    async with listening(silence) as url:
        with pytest.raises(HostError, match=r"within 0\.05 s"):
            await client.call(at(url), "POST", "/api/generate", b"{}", 0.05)


async def test_nobody_listens(client: HostClient) -> None:
    """A refused connection means that there is no host."""
    with nobody() as url, pytest.raises(HostError, match=r"^cannot connect: Connection refused$") as caught:
        await client.version(at(url))
    assert (caught.value.reason, caught.value.unreachable) == ("connect_error", True)


async def test_no_connection_in_time(client: HostClient) -> None:
    """So does one that never comes about."""
    with deaf() as url, pytest.raises(HostError, match="cannot connect") as caught:
        await client.version(at(url))
    assert (caught.value.reason, caught.value.unreachable) == ("connect_error", True)


async def test_no_tls_there(client: HostClient) -> None:
    """A host that was configured with https by mistake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with listening(serve) as url:
        with pytest.raises(HostError, match=r"^cannot connect: it does not speak TLS \(its url begins with https\)$"):
            await client.version(at(url.replace("http:", "https:")))


async def test_an_error_status_is_an_answer(client: HostClient) -> None:
    """What a host says to a management call goes to the caller as it is, body and type."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await asked(reader))
        writer.write(http(b'{"error":"no"}', 404, "application/json; charset=utf-8"))

    async with listening(serve) as url:
        answer = await client.call(at(url), "POST", "/api/generate", b'{"model":"x"}')
    assert (answer.status, answer.content_type, answer.body) == (
        404,
        "application/json; charset=utf-8",
        b'{"error":"no"}',
    )
    assert b"Content-Type: application/json\r\n" in heads[0]
    assert heads[0].endswith(b'\r\n\r\n{"model":"x"}')


# -- calls that take long -------------------------------------------------------------------------------------------------------------


STOPPABLE = """
import signal, socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
caller, _ = listener.accept()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
caller.recv(65536)
caller.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n{"status":"a"}\\n')
signal.sigwait({signal.SIGTERM})
caller.sendall(b'{"status":"b"}\\n')
"""
"""A host that says a second line when it is told to, if it is not stopped."""


async def lines_of(client: HostClient, url: str) -> list[Any]:
    """Every line of an answer."""
    async with client.open(at(url), "POST", "/api/pull", b"{}") as stream:
        return [line async for line in stream.lines()]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"status":"a"}\n{"status":"b"}\n', [{"status": "a"}, {"status": "b"}]),
        (b'{"status":"a"}\n{"status":"b"}', [{"status": "a"}, {"status": "b"}]),
        (b'\n7\n{]\n{"status":"a"}\n', [{"status": "a"}]),
        (b"", []),
    ],
)
async def test_lines(client: HostClient, body: bytes, expected: list[Any]) -> None:
    """Objects, one a line; what is none is passed over."""
    async with listening(saying(http(body))) as url:
        assert await lines_of(client, url) == expected


async def test_a_line_without_end(client: HostClient) -> None:
    """It is not held for ever."""
    async with listening(saying(http(b"x" * (LINE_LIMIT_BYTES + 1)))) as url:
        with pytest.raises(HostError, match="a line is over"):
            await lines_of(client, url)


async def test_lines_that_are_none(client: HostClient) -> None:
    """A host that says nothing else is left."""
    async with listening(saying(http(b"x\n" * 50_000 + b'{"status":"success"}\n'))) as url:
        with pytest.raises(HostError, match="over 1000 lines are no JSON"):
            await lines_of(client, url)


async def test_an_answer_that_breaks_off(client: HostClient) -> None:
    """What came, came; then it is an error."""
    cut = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status":"a"}\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(cut)

    got = []
    async with listening(serve) as url:
        with pytest.raises(HostError):  # noqa: PT012
            async with client.open(at(url), "POST", "/api/pull", b"{}") as stream:
                async for line in stream.lines():
                    got.append(line)
    assert got == [{"status": "a"}]


async def test_no_time_limit_once_connected() -> None:
    """A host may be silent for longer than a poll may take."""
    impatient = HostClient(0.001, 1.0)
    pull = b'{"model":"llama3.1:8b"}'
    async with (
        simulated(pull_bytes_per_second=1e10) as host,
        impatient.open(at(host.url), "POST", "/api/pull", pull) as stream,
    ):
        lines = [line async for line in stream.lines()]
    assert lines[-1] == {"status": "success"}
    await impatient.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
@pytest.mark.parametrize(("upload", "milliseconds"), [(False, 60_000), (True, 300_000)])
async def test_a_dead_host_is_noticed(client: HostClient, upload: bool, milliseconds: int) -> None:
    """The kernel asks in a silence, and waits as long for what it sent; longer where an upload may fill a host that is busy."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with (
        listening(begun) as url,
        client.open(at(url), "POST", "/api/pull", pieces() if upload else b"{}") as stream,
    ):
        connection = stream._response.connection
        assert connection is not None
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        found = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    assert found == [30, 10, 3, milliseconds]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
async def test_a_stopped_host_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel answers for it, however long it says nothing: here for more than twice as long as a dead one would be given."""
    monkeypatch.setattr("gateway.fleet.client.KEEPALIVE", dict.fromkeys(KEEPALIVE, 1))
    monkeypatch.setattr("gateway.fleet.client.UNHEARD", {"TCP_USER_TIMEOUT": 1000})
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", STOPPABLE, stdout=subprocess.PIPE)
    client = HostClient(2.0, 1.0)
    try:
        assert host.stdout is not None
        url = f"http://127.0.0.1:{int(await host.stdout.readline())}"
        async with client.open(at(url), "POST", "/api/pull", b"{}") as stream:
            host.send_signal(signal.SIGSTOP)
            lines = stream.lines()
            assert await anext(lines) == {"status": "a"}
            more = asyncio.ensure_future(anext(lines))  # noqa: TID251 - a wait that must not end
            assert await asyncio.wait((more,), timeout=3.0) == (set(), {more})
            host.send_signal(signal.SIGCONT)
            host.send_signal(signal.SIGTERM)
            assert await more == {"status": "b"}
    finally:
        host.kill()
        await host.wait()
        await client.close()


async def test_leaving_breaks_it_off(client: HostClient) -> None:
    """The host learns of it."""
    async with simulated(pull_bytes_per_second=1e6) as host:
        async with client.open(at(host.url), "POST", "/api/pull", b'{"model":"llama3.1:8b"}') as stream:
            assert await anext(stream.lines()) == {"status": "pulling manifest"}
        await host.wait_until(lambda: host.ledger.abandoned["/api/pull"] == 1)


async def test_cookies_are_nobodys(client: HostClient) -> None:
    """All callers share the client: what one was given is not sent for the next."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await asked(reader):
            heads.append(head)
            writer.write(http(b"{}", 200, "application/json", "Set-Cookie: who=alice; Path=/"))

    async with listening(serve) as url:
        for _ in range(2):
            await client.call(at(url.replace("127.0.0.1", "localhost")), "POST", "/api/me", b"{}")
    assert [b"cookie" in head.lower() for head in heads] == [False, False]


async def test_a_name_that_is_none(client: HostClient) -> None:
    """What cannot be asked of a name server is a host that is not there."""
    with pytest.raises(HostError) as raised:
        await client.call(at("http://a..b:1"), "GET", "/api/version")
    assert raised.value.unreachable


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "it broke off in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", "it broke off in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "its answer is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "its answer is not HTTP"),
    ],
)
async def test_what_breaks_off_in_words(client: HostClient, answer: bytes, words: str) -> None:
    """No class, status or URL of the library's is told to anybody."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(answer)
        writer.close()

    async with listening(once) as url:
        with pytest.raises(HostError) as caught:
            await client.call(at(url), "GET", "/api/ps")
    assert str(caught.value) == f"/api/ps: {words}"
