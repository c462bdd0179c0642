"""Asks a gateway what it does, over its API, and tells it what to do."""

import os
import ssl
import time
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from gateway.fleet.tls import in_words
from gateway.top.look import Look, SeenFleet, SeenGenerations, SeenReadiness
from gateway.top.scrape import scrape

TIMEOUT_SECONDS = 5.0
MOST_BYTES = 32 * 1024 * 1024  # of one answer
_OK = (200,)

Told = TypeVar("Told")


class Unreachable(Exception):
    """There is no gateway, or what answers is none. The message says why, in a few words."""


class _Said(msgspec.Struct, frozen=True):
    error: str = ""


class Asking:
    """One gateway by its URL; ``key``, if there is one, is sent along; without ``tls`` it is trusted as the system trusts; ``async with``."""

    def __init__(self, url: str, key: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._tls: ssl.SSLContext | bool = tls or True
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def look(self) -> Look:
        """All that is shown, asked for one after the other on one connection. Raises Unreachable.

        Metrics before generations: one that ends in between is missing in both until the next look, not counted twice.
        """
        fleet = await self._told("/api/fleet", SeenFleet)
        metrics = (await self._answer("GET", "/metrics"))[1]
        generations = await self._told("/api/generations", SeenGenerations)
        readiness = await self._told("/readyz", SeenReadiness, (200, 503))
        told = scrape(metrics.decode(errors="replace"))
        return Look(time.monotonic(), time.time(), fleet, generations.generations, readiness, told)

    async def cancel(self, generation: str) -> str:
        """Stop a generation; what came of it, in words. Raises Unreachable."""
        status, body = await self._answer("DELETE", f"/api/generations/{quote(generation, safe='')}")
        if status == 404:
            return "it had ended already"
        return "stopped" if status in _OK else _refused(status, body)

    async def drain(self, host: str, *, draining: bool) -> str:
        """Drain a host, or bring it back; what came of it, in words. Raises Unreachable."""
        verb = "drain" if draining else "resume"
        status, body = await self._answer("POST", f"/api/hosts/{quote(host, safe='')}/{verb}")
        if status not in _OK:
            return _refused(status, body)
        return "takes no new requests" if draining else "takes requests again"

    async def _told(self, path: str, kind: type[Told], statuses: tuple[int, ...] = _OK) -> Told:
        status, body = await self._answer("GET", path)
        if status == 404:
            raise Unreachable(f"no Corral answers there: GET {path} is a 404")
        if status not in statuses:
            raise Unreachable(f"GET {path}: {_refused(status, body)}")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise Unreachable(f"GET {path}: not what a Corral says: {error}") from None

    async def _answer(self, method: str, path: str) -> tuple[int, bytes]:
        try:
            async with self._session.request(method, self.url + path, ssl=self._tls) as answer:
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise Unreachable(f"{method} {path}: more than {MOST_BYTES >> 20} MiB came")
                return answer.status, bytes(body)
        except TimeoutError:
            raise Unreachable(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unreachable(_words(error.certificate_error)) from None
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(_words(error.os_error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from None


async def looked(url: str, key: str = "", tls: ssl.SSLContext | None = None) -> Look:
    """One look. Raises Unreachable."""
    async with Asking(url, key, tls) as asking:
        return await asking.look()


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return in_words(error)
    number = getattr(error, "errno", None)  # uvloop's own words for it are longer
    return os.strerror(number) if number and number > 0 else str(error)


def _refused(status: int, body: bytes) -> str:
    try:
        said = msgspec.json.decode(body, type=_Said).error
    except msgspec.DecodeError:
        said = ""
    return f"{status} {said}".strip()
