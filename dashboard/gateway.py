"""The gateway, for pages: the only room that knows HTTP.

Streamlit runs a page's script in a thread of its own, again and again; what lives longer runs on one loop in one thread of this process. Calls
from a script wait for the loop; what is followed (``following.py``) runs there as tasks and is only looked at.
"""

import asyncio
import copy
import json
import threading
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import aiohttp

URL = "CORRAL_GATEWAY"
KEY = "CORRAL_API_KEY"
GRAFANA = "CORRAL_GRAFANA_URL"
USER_HEADER = "CORRAL_USER_HEADER"
"""Variables of the environment that name the gateway, what it is asked with, a Grafana with the dashboards of ``grafana/out``, if there is one, and the
header by which a sign-on before the app says who looks at it."""
NAMELESS = "nameless"
"""The code of what the app itself refuses: to ask for somebody who is not named."""
DEFAULT = "http://127.0.0.1:11434"

T = TypeVar("T")
PATIENCE_SECONDS = 8.0
UPLOAD_SECONDS = 60.0
AT_ONCE = 8
"""Calls of ``each`` that run at a time."""


class GatewayError(Exception):
    """What the gateway answered instead, in its own words. ``status`` 0: it cannot be reached. ``generation``: what is in the way. ``code``: the
    gateway's for programs; empty where it only passes on what a host said."""

    def __init__(self, status: int, message: str, generation: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.generation = generation
        self.code = code

    @property
    def keeps_nothing(self) -> bool:
        """Whether it is for want of a database, of which none is configured."""
        return self.message.startswith("nothing is kept here")


class Gateway:
    """One gateway at ``url``; ``key`` is sent as a bearer token. Made once for the process, with a view of it for each person who looks: ``close``
    ends its thread."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.person: dict[str, str] = {}
        """The header by which each call says who asks; empty: the app itself."""
        self._whole = self
        self._http: aiohttp.ClientSession | None = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Gateway {self.url}>"

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def of(self, person: str) -> "Gateway":
        """The same, as this person asks it: what it answers is theirs."""
        same = copy.copy(self)
        same.person = {"X-Corral-User": person}
        return same

    def close(self) -> None:
        """Cancel what is followed, end the thread."""
        self.call(self._closed())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    async def _closed(self) -> None:
        tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    # -- from a page's thread --------------------------------------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop, and wait."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result()

    def get(self, path: str, /, **query: Any) -> Any:
        """The answer's JSON. Raises GatewayError."""
        return self.call(self.ask("GET", path, query=query))

    def several(self, *asked: tuple[str, Mapping[str, Any]]) -> list[Any]:
        """The answers to several paths with their queries, asked for at once. Raises the first GatewayError."""
        return self.call(self._each([("GET", path, None, query, False) for path, query in asked]))

    def post(self, path: str, body: Any = None, /, *, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """The same."""
        return self.call(self.ask("POST", path, body, query=query, headers=headers))

    def patch(self, path: str, body: Any) -> Any:
        """The same."""
        return self.call(self.ask("PATCH", path, body))

    def delete(self, path: str, body: Any = None, /, *, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """The same."""
        return self.call(self.ask("DELETE", path, body, query=query, headers=headers))

    def text(self, path: str) -> str:
        """An answer that is not JSON. Raises GatewayError."""
        told: str = self.call(self.ask("GET", path, text=True))
        return told

    def each(
        self, method: str, paths: Iterable[str], body: Any = None, *, text: bool = False, **query: Any
    ) -> list[Any]:
        """The answers of several calls, in their order. All are made, AT_ONCE at a time; then the first GatewayError is raised."""
        return self.call(self._each([(method, path, body, query, text) for path in paths]))

    # -- on the loop -----------------------------------------------------------------------------------------------------------

    @property
    def http(self) -> aiohttp.ClientSession:
        """For what reads streams itself, with ``person`` among its headers."""
        whole = self._whole
        if whole._http is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_SECONDS)
            whole._http = aiohttp.ClientSession(self.url, headers=self._headers, timeout=timeout, read_bufsize=2**20)
        return whole._http

    async def _each(self, calls: list[tuple[str, str, Any, Mapping[str, Any], bool]]) -> list[Any]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(method: str, path: str, body: Any, query: Mapping[str, Any], text: bool) -> Any:
            async with room:
                return await self.ask(method, path, body, query=query, text=text)

        answers = await asyncio.gather(*(one(*call) for call in calls), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        text: bool = False,
    ) -> Any:
        """One call. ``body``: bytes as they are, all else as JSON; ``text``: its answer is not JSON. Raises GatewayError."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name: _worded(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with asyncio.timeout(UPLOAD_SECONDS if body is not None else PATIENCE_SECONDS):
                said = {**self.person, **(headers or {})}
                async with self.http.request(method, path, data=data, params=given, headers=said) as answer:
                    content = await answer.read()
        except TimeoutError:
            raise GatewayError(0, f"{self.url} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise GatewayError(0, f"{self.url} cannot be reached: {error}") from None
        if answer.status >= 400:
            raise refusal(answer.status, content, answer.headers)
        return content.decode() if text else _json(content)


def refusal(status: int, content: bytes, headers: Mapping[str, str]) -> GatewayError:
    """An answer of 4xx or 5xx."""
    told = _json(content)
    words = told.get("error") if isinstance(told, dict) else None
    if isinstance(words, dict):  # as the dialects of others have it
        words = words.get("message")
    told_of, code = headers.get("X-Corral-Generation", ""), headers.get("X-Corral-Error", "")
    return GatewayError(status, str(words or f"HTTP {status}"), told_of, code)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None


def _worded(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
