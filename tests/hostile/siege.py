"""Many attacks at once over raw sockets against one gateway, while a stream of somebody else runs through it."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.loop import LOOP
from tests.builders import TEXT
from tests.conftest import corrals
from tests.contract.raw import Answer, Cut, ask
from tests.scripted import Asked, ScriptedHost
from tests.stage import SECONDS, Client, Stage

SECRET = "secret:1b"
MARK = b"case@@@@"
"""In an attack's bytes: as long as what stands for it, so that lengths stay right."""

SOON_SECONDS = 5.0
"""By when every attack has its answer, on a busy machine too; what has a deadline of its own says so."""

CANARY_SECONDS = 0.005
TOGETHER = 60
FINE = b'{"model":"m","response":"hi","message":{"content":"hi"},"done":true,"eval_count":1}\n'
Dialect = Literal["ollama", "openai", "anthropic", "plain", "none"]
CANARY = json.dumps({"model": TEXT, "prompt": "canary"}).encode()
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Attack:
    """What is sent, in ``pieces`` that the gateway reads one after the other, and what has to become of it.

    ``statuses`` of all answers, in order; ``closes``: then the connection is closed, otherwise it serves the next request, which proves
    that both sides agree where it begins. ``seen``: how often a host hears of it. ``error``: the dialect of the last answer, an error.
    """

    pieces: tuple[bytes, ...]
    statuses: tuple[int, ...]
    closes: bool = True
    seen: int = 0
    error: Dialect = "none"
    code: str = ""  # X-Corral-Error
    within_seconds: float = SOON_SECONDS


@dataclass(slots=True)
class Struck:
    """What became of it."""

    statuses: tuple[int, ...] = ()
    last: Answer | None = None
    closed: bool = False
    aligned: bool = False
    seen: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Siege:
    """How it went. ``canary``: the numbers of the lines that the other stream brought, and whether it ended well."""

    struck: dict[str, Struck]
    canary: list[int]
    whole: bool
    asked: list[Asked]


def chunked(*lines: bytes) -> bytes:
    """Chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


class Target:
    """A host that has TEXT and SECRET, says one line to everybody, and numbered lines to the canary until ``over``."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        rows = [
            {"name": name, "model": name, "digest": str(at) * 64, "size": 1, "modified_at": ""}
            for at, name in enumerate((TEXT, SECRET))
        ]
        self.host = ScriptedHost("gpu1", self._answer, {"/api/tags": {"models": rows}})

    @contextlib.asynccontextmanager
    async def until_over(self) -> AsyncIterator[None]:
        """Whatever happens, the canary's stream ends."""
        try:
            yield
        finally:
            self.over.set()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if b"canary" not in asked.body:
            writer.write(HEAD + chunked(FINE, b""))
            return
        writer.write(HEAD)
        number = 0
        while not self.over.is_set():
            writer.write(chunked(b'{"response":"%d","done":false}\n' % number))
            number += 1
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANARY_SECONDS):
                    await self.over.wait()
        writer.write(chunked(b'{"response":"","done":true,"eval_count":%d}\n' % number, b""))


def besieged(attacks: Mapping[str, Attack], path: Path, key: str = "", **sections: Any) -> Siege:
    """All attacks, some TOGETHER at a time, on a gateway with these sections of configuration. ``key``: the canary's, which may do everything."""
    with asyncio.Runner(loop_factory=LOOP) as runner:
        return runner.run(_siege(attacks, path, key, sections))


async def _siege(attacks: Mapping[str, Attack], path: Path, key: str, sections: Mapping[str, Any]) -> Siege:
    async with corrals(path) as corral:
        target = Target()
        stage = await corral(target.host, slots=1000, **sections)
        stage.key = key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        room = asyncio.Semaphore(TOGETHER)

        async def one(number: int, attack: Attack) -> Struck:
            mark = b"case%04d" % number
            async with room:
                struck = await _strike(stage, attack, mark)
            struck.seen = sum(mark in asked.head or mark in asked.body for asked in target.host.asked)
            return struck

        async with Client.to(stage.url) as canary, target.until_over(), asyncio.TaskGroup() as tasks:
            await canary.send("POST", "/api/generate", CANARY, headers)
            lines = tasks.create_task(_lines(canary))
            running = {name: tasks.create_task(one(at, attack)) for at, (name, attack) in enumerate(attacks.items())}
            struck = {name: await task for name, task in running.items()}
            assert (await ask(stage.url, "GET", "/healthz")).status == 200
            target.over.set()
            came = await lines
        numbers = [int(line["response"]) for line in came if not line["done"]]
        return Siege(struck, numbers, bool(came[-1]["done"]), target.host.asked)


async def _lines(client: Client) -> list[dict[str, Any]]:
    await client.head()
    came: list[dict[str, Any]] = []
    while (chunk := await client.chunk()) is not None:
        came += [json.loads(line) for line in chunk.splitlines()]
    return came


async def _strike(stage: Stage, attack: Attack, mark: bytes) -> Struck:
    struck, loop = Struck(), asyncio.get_running_loop()
    began = loop.time()
    async with Client.to(stage.url) as client:
        with contextlib.suppress(Cut, ConnectionError, TimeoutError):
            async with asyncio.timeout(attack.within_seconds + SECONDS):
                await _send(stage, client, attack, mark)
                for _ in attack.statuses:
                    head = await client.head()
                    struck.last = Answer(head.status, head.reason, head.headers, "none")
                    struck.statuses += (head.status,)
                    while head.status != 100 and (chunk := await client.chunk()) is not None:
                        struck.last.chunks.append(chunk)
                struck.seconds = loop.time() - began
                if not attack.closes:
                    await client.write(HEALTH, "GET")
                    struck.aligned = (await client.answer()).status == 200
        if attack.closes:
            struck.closed = await _is_closed(client)
        struck.seconds = struck.seconds or loop.time() - began
    return struck


async def _send(stage: Stage, client: Client, attack: Attack, mark: bytes) -> None:
    method = attack.pieces[0].lstrip().split(b" ")[0].decode("latin-1") if attack.pieces else ""
    for at, piece in enumerate(attack.pieces):
        if at:  # a round trip of somebody else: what came before has been read
            await ask(stage.url, "GET", "/healthz")
        with contextlib.suppress(ConnectionError, RuntimeError):  # it answered before it had everything
            await client.write(piece.replace(MARK, mark), method)


async def _is_closed(client: Client) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            return await client._reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


# -- judging ------------------------------------------------------------------------------------------------------------------


def judged(attack: Attack, struck: Struck) -> None:
    """Raises AssertionError unless it ended as it has to."""
    assert struck.statuses == attack.statuses, struck.last
    assert struck.seen == attack.seen, "what hosts heard of it"
    assert (struck.closed, struck.aligned) == (attack.closes, not attack.closes)
    assert struck.seconds < attack.within_seconds
    if struck.last is not None and struck.last.status >= 400:
        assert struck.last.get("X-Corral-Error") == (attack.code or None)
        words_of(attack.error, struck.last)


def words_of(dialect: Dialect, answer: Answer) -> str:
    """The message of an error, where that dialect's clients look for it."""
    if dialect == "none":
        assert not answer.body
        return ""
    if dialect == "plain":
        assert (answer.get("Content-Type") or "").startswith("text/plain")
        return answer.body.decode()
    value = json.loads(answer.body)
    if dialect == "ollama":
        assert list(value) == ["error"]
        words = value["error"]
    else:
        assert (value.get("type") == "error") is (dialect == "anthropic")
        assert value["error"]["type"]
        words = value["error"]["message"]
    assert isinstance(words, str)
    assert words
    return words


def well_formed(asked: Asked) -> None:
    """Raises AssertionError unless a host could read a request in one way alone."""
    assert asked.head.endswith(b"\r\n\r\n")
    line, *fields = asked.head[:-4].split(b"\r\n")
    assert re.fullmatch(rb"POST /[!-~]* HTTP/1\.1", line)
    for field in fields:
        assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\t -~\x80-\xff]*", field), field
    names = [field.partition(b":")[0].lower() for field in fields]
    assert b"transfer-encoding" not in names
    assert [names.count(name) for name in (b"content-length", b"host")] == [1, 1]
    length = next(field for field in fields if field.lower().startswith(b"content-length"))
    assert length == b"Content-Length: %d" % len(asked.body)


def undisturbed(siege: Siege) -> None:
    """Raises AssertionError unless the canary had every line, in order, to its end, and hosts heard only what is well formed."""
    assert siege.whole
    assert siege.canary == list(range(len(siege.canary)))
    assert siege.canary
    for asked in siege.asked:
        well_formed(asked)


# -- short ways -----------------------------------------------------------------------------------------------------------------

PATHS: dict[str, Dialect] = {"/api/chat": "ollama", "/v1/chat/completions": "openai", "/v1/messages": "anthropic"}


def body_for(path: str = "/api/generate", **fields: Any) -> bytes:
    """A body that this path takes, and that is marked."""
    return json.dumps({"model": TEXT, "prompt": MARK.decode(), "messages": []} | fields).encode()


def post(path: str, body: bytes, *fields: bytes, sized: bool = True, host: bytes = b"localhost") -> bytes:
    """A POST; ``fields`` are further lines of its head."""
    length = (b"Content-Length: %d" % len(body),) if sized else ()
    return b"\r\n".join((b"POST %b HTTP/1.1" % path.encode(), b"Host: " + host, *length, *fields, b"", b"")) + body


def named(*tables: Mapping[str, Attack]) -> dict[str, Attack]:
    """All of them; no name stands for two."""
    found = [pair for table in tables for pair in table.items()]
    every = dict(found)
    assert len(every) == len(found)
    return every
