"""Answers and conversations while they run in the gateway: a task reads on, pages look at what there is.

The gateway keeps them (``/api/generations/{id}/stream``), so nothing here is lost when this process ends: whoever comes next reads from the
beginning. A connection that breaks is taken up where it was.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from dashboard.gateway import Gateway, GatewayError, refusal

KEEP_SECONDS = 300.0
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 0.5
TRIES = 10


@dataclass
class Spoken:
    """One answer as it grows. Seconds are monotonic; ``rate``: tokens per second as they come."""

    content: str = ""
    thinking: str = ""
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    thought: float | None = None  # seconds that it thought
    last: float | None = None
    chunks: int = 0

    def add(self, content: str, thinking: str) -> None:
        """More of it."""
        if not content and not thinking:
            return
        now = time.monotonic()
        self.first = self.first or now
        if content and self.thinking and self.thought is None:
            self.thought = now - self.first
        self.content += content
        self.thinking += thinking
        self.chunks += 1
        self.last = now

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float | None:
        """Chunks a second, which Ollama makes of one token each."""
        if self.first is None or self.last is None or self.last - self.first < 0.2:
            return None
        return (self.chunks - 1) / (self.last - self.first)


class Following:
    """What runs under an id. ``over``: nothing more comes; ``error``: why it failed. ``phase``, ``host``, ``age``, the ``place`` in the queue and the
    seconds for which it ``waits`` there, those for which the host ``loads`` the model: as the gateway tells. ``away``: the gateway cannot be reached,
    and is tried again."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.events: list[dict[str, Any]] = []  # of a conversation, without its deltas
        self.answers: dict[int, Spoken] = {}  # by turn; of a plain answer there is one, 0
        self.phase = "queued"
        self.host: str | None = None
        self.age = 0.0
        self.place: int | None = None
        self.waits: float | None = None
        self.loads = 0.0
        self.away = False
        self.over = False
        self.ended = 0.0
        self.error: str | None = None
        self.at = 0  # lines that have come
        self.version = 0  # grows with every change

    @property
    def answer(self) -> Spoken:
        """The plain one."""
        return self.answers.setdefault(0, Spoken())

    def take(self, line: bytes) -> None:
        """One line of it."""
        self.at += 1
        try:
            told = json.loads(line)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        self.version += 1
        if "event" in told:
            self._event(told)
        elif "message" in told:
            said = told["message"]
            self.answer.add(said.get("content") or "", said.get("thinking") or "")
            self.phase = "streaming"
        elif "error" in told:
            self.error = str(told["error"])

    def _event(self, told: dict[str, Any]) -> None:
        turn = told.get("turn", 0)
        if told["event"] == "delta":
            self.answers.setdefault(turn, Spoken()).add(told.get("content", ""), told.get("thinking", ""))
            return
        if told["event"] == "turn_start":
            self.answers[turn] = Spoken()
        self.events.append(told)
        self.phase = "streaming"

    def end(self, error: str | None = None) -> None:
        """Nothing more comes."""
        self.error = error or self.error
        self.over, self.ended = True, time.monotonic()
        self.version += 1


class Hub:
    """All that is followed, by id; forgotten some minutes after its end."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._followed: dict[str, Following] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, id_: str, gateway: Gateway) -> Following:
        """From a page's thread: what runs under this id, followed from its beginning, as whoever looks asks for it."""
        return gateway.call(self._follow(id_, gateway))

    async def _follow(self, id_: str, gateway: Gateway) -> Following:
        now = time.monotonic()
        for old in [one for one in self._followed.values() if one.over and now - one.ended > KEEP_SECONDS]:
            del self._followed[old.id]
        known = self._followed.get(id_)
        if known is None or (
            known.over and known.away
        ):  # given up, for the gateway could not be reached: who asks now has reached it
            following = self._followed[id_] = Following(id_)
            for work in (self._read(following, gateway), self._look(following, gateway)):
                task = gateway.loop.create_task(work, name=f"follow {id_}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return self._followed[id_]

    async def _read(self, following: Following, gateway: Gateway) -> None:
        """To its end, over connections that break; TRIES of them one after another without a line are enough."""
        left = TRIES
        while left:
            at = following.at
            try:
                await self._read_on(following, gateway)
            except GatewayError as error:
                following.end(error.message)
                return
            except (aiohttp.ClientError, OSError) as error:
                left = TRIES if following.at > at else left - 1
                why = str(error) or type(error).__name__
                following.away = True
                await asyncio.sleep(AGAIN_SECONDS)  # noqa: TID251 - time itself is meant
            else:
                following.end()
                return
        following.end(f"the answer broke off: {why}")

    async def _read_on(self, following: Following, gateway: Gateway) -> None:
        path = f"/api/generations/{following.id}/stream"
        async with gateway.http.get(path, params={"from": str(following.at)}, headers=gateway.person) as answer:
            if answer.status >= 400:
                raise refusal(answer.status, await answer.read(), answer.headers)
            following.away = False
            following.host = answer.headers.get("X-Corral-Host") or following.host
            async for line in answer.content:
                following.take(line)

    async def _look(self, following: Following, gateway: Gateway) -> None:
        """How far it is, while it says nothing."""
        while not following.over and not following.at:
            with contextlib.suppress(GatewayError):
                row = await gateway.ask("GET", f"/api/generations/{following.id}")
                following.phase, following.host, following.age = row["phase"], row["host"], row["age_seconds"]
                following.place, following.waits = row["queue_place"], row["queue_seconds"]
                following.loads = row["predicted_load_seconds"] or 0.0
                following.version += 1
            await asyncio.sleep(LOOK_SECONDS)  # noqa: TID251 - idem
