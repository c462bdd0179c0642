"""Detached generations as tests ask for them and read them."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.builders import Call
from tests.contract.raw import Answer, ask
from tests.stage import Client, Stage

EVENTS = {"Accept": "text/event-stream"}


async def detach(stage: Stage, request: Call, session: str = "") -> str:
    """The id of a generation that runs on without us."""
    answer = await try_to_detach(stage, request, session)
    assert answer.status == 202, answer.body
    told = json.loads(answer.body)
    assert told["stream"] == answer.get("Location") == f"/api/generations/{told['id']}/stream"
    assert (told["session"], answer.get("X-Corral-Generation")) == (session or None, told["id"])
    return str(told["id"])


async def try_to_detach(stage: Stage, request: Call, session: str = "") -> Answer:
    """What the caller is answered."""
    headers = request.headers | ({"X-Corral-Session": session} if session else {})
    return await stage.ask(Call(f"{request.path}?detach=true", request.body, headers))


async def read(stage: Stage, id_: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """The whole answer, as a reader gets it who comes now."""
    return await ask(stage.url, "GET", f"/api/generations/{id_}/stream{query}", None, headers)


@contextlib.asynccontextmanager
async def reading(
    stage: Stage, id_: str, query: str = "", headers: Mapping[str, str] | None = None, receive_bytes: int = 0
) -> AsyncIterator[Client]:
    """A reader, step by step."""
    async with Client.to(stage.url, receive_bytes) as client:
        await client.send("GET", f"/api/generations/{id_}/stream{query}", None, headers)
        yield client


async def rest_of(client: Client) -> bytes:
    """What is left of an answer whose head was read."""
    body = b""
    while (chunk := await client.chunk()) is not None:
        body += chunk
    return body


def parsed(body: bytes) -> list[dict[str, str]]:
    """Server-sent events as a browser reads them: their fields; the lines of data joined; comments under ``comment``."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            name = name or "comment"
            event[name] = f"{event[name]}\n{value.strip()}" if name in event else value.strip()
        found.append(event)
    return found


def lines(body: bytes) -> list[Any]:
    """NDJSON."""
    assert body.endswith(b"\n") or not body
    return [json.loads(line) for line in body.split(b"\n")[:-1]]
