"""Sessions as clients of a gateway talk in them."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.builders import TEXT
from tests.contract.raw import Answer, ask
from tests.stage import Client


class Talk:
    """One session at a gateway. ``stage`` may be all there is to know of one: ``url`` and ``get``."""

    def __init__(self, stage: Any, session: dict[str, Any]) -> None:
        self.stage = stage
        self.id = str(session["id"])
        self.path = f"/api/sessions/{self.id}"

    @classmethod
    async def new(cls, stage: Any, **body: Any) -> "Talk":
        """A new session, of the usual model."""
        answer = await ask(stage.url, "POST", "/api/sessions", json.dumps({"model": TEXT} | body).encode())
        assert answer.status == 201, answer.body
        return cls(stage, json.loads(answer.body))

    async def say(self, text: str | None = None, **body: Any) -> Answer:
        """The answer to what is said; None: to what was said before."""
        return await ask(self.stage.url, "POST", f"{self.path}/chat", said(text, **body))

    @contextlib.asynccontextmanager
    async def saying(self, text: str | None = None, **body: Any) -> AsyncIterator[Client]:
        """The same, step by step."""
        async with Client.to(self.stage.url) as client:
            await client.send("POST", f"{self.path}/chat", said(text, **body))
            yield client

    async def session(self) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = await self.stage.get(self.path)
        return found

    async def messages(self, query: str = "") -> list[dict[str, Any]]:
        """Those of the branch that is shown."""
        found: list[dict[str, Any]] = (await self.stage.get(f"{self.path}/messages{query}"))["messages"]
        return found

    async def free(self) -> list[dict[str, Any]]:
        """The messages, once nobody writes to it any more."""
        await self.stage.gateway.talking.chats.busy.idle()
        assert (await self.session())["running"] is None
        return await self.messages()


def said(text: str | None = None, **body: Any) -> bytes:
    """A body; ``message`` may have more than a text."""
    message = ({"content": text} if text is not None else {}) | body.pop("message", {})
    return json.dumps(({"message": message} if message else {}) | body).encode()


def text_of(body: bytes) -> str:
    """What lines of an answer say."""
    return "".join(json.loads(line)["message"]["content"] for line in body.splitlines())
