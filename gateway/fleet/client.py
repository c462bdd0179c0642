"""Calls to a host that are no inference: polls and management. Not the relay's path, so aiohttp's own client is fine here."""

import os
import re
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from yarl import URL

from gateway.dialects.ollama import message_of
from gateway.errors import ConfigError
from gateway.fleet.host import AvailableModel, Host, LoadedModel
from gateway.fleet.tls import Contexts, in_words

VERSION = "/api/version"
GATEWAYS = "X-Corral-Gateways"
GATEWAYS_MOST = 16
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
MODELS_MOST = 2000  # of a host's list that are looked at: what is worked out of each takes some 20 us at every poll
LINE_LIMIT_BYTES = 1024 * 1024
JUNK_LINES = 1000
# A host that loses its power in the middle of a pull says nothing any more: the kernel asks after it, and gives up what it does not
# acknowledge. A kernel that lives does both, whatever its Ollama does, but where an upload has filled it: there the host has to read on.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, times
UNHEARD = {"TCP_USER_TIMEOUT": 60_000}  # milliseconds; as long as the questions above take
UNREAD = {"TCP_USER_TIMEOUT": 300_000}


class HostError(Exception):
    """A call failed. ``unreachable``: no connection came about; ``reason``: a bounded word for metrics."""

    def __init__(self, message: str, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """A small answer, whole."""

    status: int
    content_type: str
    body: bytes
    gateways: frozenset[str] = frozenset()  # by name, where a Corral answers: it, and those behind it

    @property
    def refuses(self) -> bool:
        """Whether it is an error that can be passed on: hosts may answer anything."""
        return 400 <= self.status < 600

    @property
    def error(self) -> str:
        """What it says, if it is an error."""
        return message_of(self.body) or f"it answered {self.status}"


class HostStream:
    """An answer that is read as it comes."""

    def __init__(self, path: str, response: aiohttp.ClientResponse) -> None:
        self._path = path
        self._response = response
        self.status = response.status

    async def whole(self) -> HostAnswer:
        """All of it."""
        return await _whole(self._path, self._response)

    async def lines(self) -> AsyncIterator[Mapping[str, Any]]:
        """Its lines, each a JSON object; others are passed over, up to JUNK_LINES. Raises HostError."""
        rest, junk = bytearray(), 0
        async for chunk in self._response.content.iter_any():
            rest += chunk
            lines: list[bytes] = []
            if b"\n" in chunk:
                *lines, tail = bytes(rest).split(b"\n")
                rest = bytearray(tail)
            if len(rest) > LINE_LIMIT_BYTES:
                raise HostError(f"{self._path}: a line is over {LINE_LIMIT_BYTES} bytes", "protocol_error")
            for line in lines:
                if (value := _object(line)) is not None:
                    yield value
                elif (junk := junk + 1) > JUNK_LINES:
                    raise HostError(f"{self._path}: over {JUNK_LINES} lines are no JSON", "protocol_error")
        if (value := _object(bytes(rest))) is not None:
            yield value


class HostClient:
    """Calls hosts. One for the whole gateway, whose ``name`` it knows; ``close`` it. ``contexts``: what connections to hosts by TLS are made with."""

    def __init__(
        self,
        timeout_seconds: float,
        connect_timeout_seconds: float,
        name: str = "",
        contexts: Contexts | None = None,
    ) -> None:
        self.name = name
        self._behind: dict[str, frozenset[str]] = {}  # URL of a host → the gateways that it leads to
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=connect_timeout_seconds)
        self._contexts = contexts or Contexts()
        self._session = _session(KEEPALIVE | UNHEARD)
        self._uploads = _session(KEEPALIVE | UNREAD)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._uploads.close()

    async def call(
        self,
        host: Host,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout_seconds: float | None = None,
        headers: Sequence[tuple[str, str]] | None = None,
    ) -> HostAnswer:
        """One call, its whole answer. Raises HostError; an HTTP error status is an answer.

        ``headers`` are a caller's that pass; without them a body is JSON of our own.
        """
        timeout = (
            aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._timeout.sock_connect)
            if timeout_seconds
            else self._timeout
        )
        if path != VERSION:
            self._refuse_loop(host)
        ours = [("Content-Type", "application/json")] if body is not None else []
        with _failures(path, timeout):
            tls = await self._tls(host)
            async with self._session.request(
                method,
                _url(host, path),
                data=body,
                headers=_with_own(host, ours if headers is None else headers),
                skip_auto_headers=() if headers is None else ("Content-Type", "User-Agent"),
                timeout=timeout,
                allow_redirects=False,
                ssl=tls,
                server_hostname=host.link.server_name or None,
            ) as response:
                return await _whole(path, response)

    @asynccontextmanager
    async def open(
        self,
        host: Host,
        method: str,
        path: str,
        body: bytes | AsyncIterable[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator["HostStream"]:
        """One call that may take hours: once connected it has no time limit. Leaving before its end breaks it off. Raises HostError."""
        self._refuse_loop(host)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.sock_connect)
        session = self._uploads if isinstance(body, AsyncIterable) else self._session
        with _failures(path, timeout):
            tls = await self._tls(host)
            async with session.request(
                method,
                _url(host, path),
                data=body,
                headers=_with_own(host, ({"Content-Type": "application/json"} | dict(headers or {})).items()),
                timeout=timeout,
                allow_redirects=False,
                ssl=tls,
                server_hostname=host.link.server_name or None,
            ) as response:
                try:
                    yield HostStream(path, response)
                finally:
                    if not response.content.at_eof() or isinstance(body, AsyncIterable):
                        response.close()

    async def _tls(self, host: Host) -> ssl.SSLContext | bool:
        return await self._contexts.of(host.link) if host.url.startswith("https:") else True

    async def version(self, host: Host) -> str:
        """GET /api/version. A host that leads back to this gateway is unreachable: what is asked of all hosts would come round for ever."""
        answer = await self.call(host, "GET", VERSION)
        self._behind[host.url] = answer.gateways
        self._refuse_loop(host)
        return str(_json(VERSION, answer).get("version", ""))

    def _refuse_loop(self, host: Host) -> None:
        if self.name in self._behind.get(host.url, ()):
            raise HostError("it leads back to this Corral itself", "loop", unreachable=True)

    def gateways(self, hosts: Iterable[Host]) -> list[str]:
        """This gateway's name, and those of all that these hosts lead to, at most GATEWAYS_MOST."""
        behind = {name for host in hosts for name in self._behind.get(host.url, ())} - {self.name}
        return [self.name, *sorted(behind)][:GATEWAYS_MOST]

    async def loaded(self, host: Host) -> tuple[LoadedModel, ...]:
        """GET /api/ps."""
        rows = _rows(_json("/api/ps", await self.call(host, "GET", "/api/ps")))
        return tuple(
            LoadedModel(
                name=str(row["name"]),
                digest=str(row["digest"]),
                size=_number(row, "size"),
                vram=_number(row, "size_vram"),
                context=_number(row, "context_length"),
                expires_at=str(row.get("expires_at", "")),
                row=row,
            )
            for row in rows
        )

    async def available(self, host: Host) -> tuple[AvailableModel, ...]:
        """GET /api/tags."""
        rows = _rows(_json("/api/tags", await self.call(host, "GET", "/api/tags")))
        return tuple(AvailableModel(str(row["name"]), str(row["digest"]), _number(row, "size"), row) for row in rows)


def _json(path: str, answer: HostAnswer) -> Mapping[str, Any]:
    if answer.status != 200:
        raise HostError(f"{path} answered {answer.status}", "http_error")
    try:
        value = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        raise HostError(f"{path} did not answer JSON", "protocol_error") from None
    if not isinstance(value, dict):
        raise HostError(f"{path} did not answer a JSON object", "protocol_error")
    return value


def _with_own(host: Host, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those, and the host's own in place of any of the same name."""
    own = {name.lower() for name, _ in host.link.headers}
    return [*((name, value) for name, value in headers if name.lower() not in own), *host.link.headers]


def _url(host: Host, path: str) -> URL:
    return URL(str(URL(host.url)).rstrip("/") + path, encoded=True)


@contextmanager
def _failures(path: str, timeout: aiohttp.ClientTimeout) -> Iterator[None]:
    """Foreign exceptions as HostErrors."""
    try:
        yield
    except ConfigError as error:
        raise HostError(f"cannot connect: {error.message}", "connect_error", unreachable=True) from None
    except (
        aiohttp.ClientConnectorError,
        aiohttp.ClientConnectorCertificateError,
        aiohttp.ConnectionTimeoutError,
    ) as error:
        raise HostError(f"cannot connect: {_words(error)}", "connect_error", unreachable=True) from None
    except TimeoutError:
        within = f" within {timeout.total:g} s" if timeout.total else ""
        raise HostError(f"no answer to {path}{within}", "timeout") from None
    except UnicodeError:  # a host's name that no name server can be asked for
        raise HostError("cannot connect: its name is none", "connect_error", unreachable=True) from None
    except aiohttp.ClientError as error:
        raise HostError(f"{path}: {_words(error)}", "protocol_error") from None


async def _whole(path: str, response: aiohttp.ClientResponse) -> HostAnswer:
    if not 200 <= response.status < 600:
        raise HostError(f"it answered {response.status}", "protocol_error")
    text = await response.content.read(ANSWER_LIMIT_BYTES + 1)
    while len(text) <= ANSWER_LIMIT_BYTES and (more := await response.content.read(ANSWER_LIMIT_BYTES)):
        text += more
    if len(text) > ANSWER_LIMIT_BYTES:
        raise HostError(f"{path}: the answer is over {ANSWER_LIMIT_BYTES} bytes", "protocol_error")
    told = ",".join(response.headers.getall(GATEWAYS, ())).split(",")[:GATEWAYS_MOST]
    gateways = frozenset(name.strip() for name in told if NAME.fullmatch(name.strip()))
    return HostAnswer(response.status, response.headers.get("Content-Type", ""), text, gateways)


def _session(watching: Mapping[str, int]) -> aiohttp.ClientSession:
    def make(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in watching.items():
            if option := getattr(socket, name, None):  # not every system has them
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return sock

    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, socket_factory=make)
    # Every caller shares the session: what a host would have one of them remember must not reach the next.
    return aiohttp.ClientSession(connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar())


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _rows(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The usable rows of a list, of its first MODELS_MOST."""
    rows = value.get("models")
    if not isinstance(rows, list):
        return []
    return [row for row in rows[:MODELS_MOST] if isinstance(row, dict) and _usable(row)]


def _usable(row: dict[str, Any]) -> bool:
    """Clients slice the digest; and what cannot be written again would break the list of all hosts."""
    if not (isinstance(row.get("name"), str) and row["name"] and len(str(row.get("digest", ""))) >= 12):
        return False
    try:
        orjson.dumps(row)
    except TypeError:
        return False
    return True


def _number(row: Mapping[str, Any], key: str) -> int:
    """A size or a count; 0 for what cannot be one."""
    value = row.get(key, 0)
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 2**62 else 0


def _words(error: BaseException) -> str:
    """In plain words: aiohttp's own name its classes, and URLs."""
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it broke off in the middle of its answer"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "its answer is not HTTP"
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if isinstance(inner, ssl.SSLError):
        return in_words(inner)
    if isinstance(inner, OSError) and not isinstance(inner, socket.gaierror) and inner.errno:
        return os.strerror(inner.errno)  # the system's own words: asyncio puts others in their place
    return str(getattr(inner, "strerror", None) or getattr(error, "strerror", None) or error or type(error).__name__)
