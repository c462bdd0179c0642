"""Conversations as clients of a gateway hold them."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.builders import TEXT
from tests.contract.raw import Answer, ask
from tests.flows.detaching import lines
from tests.stage import Client, Stage
from tests.turns.talking import Talk

ANN, BOB, CID = ({"model": TEXT, "name": name} for name in ("Ann", "Bob", "Cid"))
SHORT = {"options": {"num_predict": 4}}
LONG = {"options": {"num_predict": 1000}}
PATH = "/api/chat/multi-model"


def wish(*participants: dict[str, Any], **body: Any) -> bytes:
    """A body; without participants of Ann and Bob, who say little."""
    return json.dumps(
        {"participants": [*participants] or [ANN | SHORT, BOB | SHORT], "topic": "Cheese?"} | body
    ).encode()


async def hold(stage: Stage, *participants: dict[str, Any], **body: Any) -> Answer:
    """One, to its end."""
    return await ask(stage.url, "POST", PATH, wish(*participants, **body))


@contextlib.asynccontextmanager
async def holding(stage: Stage, *participants: dict[str, Any], **body: Any) -> AsyncIterator[Client]:
    """The same, step by step."""
    async with Client.to(stage.url) as client:
        await client.send("POST", PATH, wish(*participants, **body))
        yield client


def told(answer: Answer) -> list[dict[str, Any]]:
    """The events of an answer."""
    assert (answer.status, answer.get("Content-Type")) == (200, "application/x-ndjson"), answer.body
    events: list[dict[str, Any]] = lines(answer.body)
    assert (events[0]["event"], events[-1]["event"]) == ("start", "end")
    return events


def talk_of(stage: Stage, events: list[dict[str, Any]]) -> Talk:
    """The session that it is kept in."""
    return Talk(stage, {"id": events[0]["session"]})


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for event in events if event["event"] == kind]


def text(events: list[dict[str, Any]], turn: int) -> str:
    """What was said in a turn."""
    return "".join(event.get("content", "") for event in of(events, "delta") if event["turn"] == turn)
