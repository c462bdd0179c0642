"""What the simulator's tests share: a quick host, and the few ways of talking to one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from simulator.host import HostProfile, SimulatedHost
from tests.contract.raw import Answer, Connection, ask

SMALL = "smollm2:135m"
LARGE = "llama3.2:1b"
SLOW = 2.0
"""Tokens per second at which nothing ends by itself within a test."""


def quick(**changes: Any) -> SimulatedHost:
    """A host that loads and prefills at once and says 5000 tokens per second, but for `changes` of its profile."""
    speeds = {"tokens_per_second": 5000.0, "prefill_tokens_per_second": 1e7, "load_bytes_per_second": 1e13}
    return SimulatedHost("gpu1", HostProfile(**{**speeds, **changes}), seed=1)


def generate(model: str = SMALL, prompt: str = "Why is the sky blue?", tokens: int = 5, **rest: Any) -> dict[str, Any]:
    """The body of a request for /api/generate."""
    options = {"num_predict": tokens, **rest.pop("options", {})}
    return {"model": model, "prompt": prompt, "options": options, **rest}


def chat(model: str = SMALL, content: str = "Why is the sky blue?", tokens: int = 5, **rest: Any) -> dict[str, Any]:
    """The body of a request for /api/chat."""
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "options": {"num_predict": tokens}, **rest}


async def post(host: SimulatedHost, path: str, body: Any, **headers: str) -> Answer:
    """The answer to a POST of JSON."""
    return await ask(host.url, "POST", path, json.dumps(body).encode(), headers)


async def get(host: SimulatedHost, path: str) -> Any:
    """The JSON that a GET answers."""
    return json.loads((await ask(host.url, "GET", path)).body)


def lines(answer: Answer) -> list[dict[str, Any]]:
    """The JSON lines of an answer."""
    return [json.loads(line) for line in answer.body.splitlines()]


def said(answer: Answer) -> str:
    """The text of an answer of /api/generate."""
    return "".join(line["response"] for line in lines(answer))


def error(answer: Answer) -> tuple[int, str]:
    """Status and text of a native error."""
    return answer.status, json.loads(answer.body)["error"]


@contextlib.asynccontextmanager
async def begun(host: SimulatedHost, path: str, body: Any) -> AsyncIterator[Connection]:
    """A request that has been sent and whose answer nobody has read."""
    async with Connection.to(host.url) as connection:
        await connection.send("POST", path, json.dumps(body).encode())
        yield connection


async def all_of(host: SimulatedHost, path: str, bodies: Iterable[Any]) -> list[Answer]:
    """The answers to requests sent at the same time."""
    return await asyncio.gather(*(post(host, path, body) for body in bodies))
