"""Which hosts there are, when that can change: names with several addresses, and files that others write.

A source that fails changes nothing: the hosts that it told last stay. So a name server that is down for a minute does not empty the
fleet. The first of a name counts, and the first of a URL: one Ollama under two names would get twice its slots. What is wrong is logged when it
begins, when it becomes another thing, and when it ends.
"""

import asyncio
import dataclasses
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from gateway.config import DNS, Config, HostConfig, place_of
from gateway.errors import ConfigError
from gateway.fleet.health import BreakerPolicy
from gateway.fleet.host import Host, Link
from gateway.fleet.hostfile import HostFiles
from gateway.fleet.registry import Fleet
from gateway.fleet.residence import Load, Unload

log = logging.getLogger(__name__)
HOSTS_LIMIT = 1000
TOLD_MOST = 10  # hosts that one line of the log names


class Discovery:
    """Tells ``changed`` the hosts whenever they are others than before. ``configure`` it anew when the configuration changed."""

    def __init__(self, config: Config, changed: Callable[[tuple[Host, ...]], None]) -> None:
        self._config = config
        self._changed = changed
        self._files = HostFiles()
        self._last: dict[str, tuple[HostConfig, ...]] = {}  # by source
        self._failing: dict[str, str] = {}  # by source: why
        self._left_out: tuple[str, ...] = ()
        self._hosts: tuple[Host, ...] | None = None

    @property
    def failing(self) -> bool:
        """Whether a source told nothing when it was looked at last."""
        return bool(self._failing)

    def configure(self, config: Config) -> None:
        """Take what the next ``step`` looks at from here."""
        self._config = config

    async def step(self) -> None:
        """Look at all sources once."""
        found: list[HostConfig] = []
        for host in self._config.hosts:
            if host.url.startswith(DNS):
                found += await self._source(host.url, lambda host=host: _resolved(host))  # type: ignore[misc]
            else:
                found.append(host)
        secrets = self._config.discovery.secrets
        for file in self._config.discovery.files:
            found += await self._source(file, lambda file=file: self._files.read(file, secrets))  # type: ignore[misc]
        hosts, left_out = _unique(found)
        self._tell(left_out)
        if hosts != self._hosts:
            self._hosts = hosts
            if bare := [host.name for host in hosts if not host.link.verify]:
                log.warning("anybody on the way can pose as %s: insecure_skip_verify", ", ".join(bare))
            self._changed(hosts)

    async def _source(self, name: str, look: Callable[[], Any]) -> tuple[HostConfig, ...]:
        try:
            self._last[name] = tuple(await look())
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            if self._failing.get(name) != why:
                stay = "; those it told last stay" if self._last.get(name) else ""
                log.warning("%s tells no hosts: %s%s", name, why, stay)
            self._failing[name] = why
        else:
            if self._failing.pop(name, None) is not None:
                log.info("%s tells hosts again", name)
        return self._last.get(name, ())

    def _tell(self, left_out: tuple[str, ...]) -> None:
        if left_out == self._left_out:
            return
        self._left_out = left_out
        if left_out:
            more = f"; and {len(left_out) - TOLD_MOST} more" if len(left_out) > TOLD_MOST else ""
            log.warning("hosts that are told of and left out: %s%s", "; ".join(left_out[:TOLD_MOST]), more)
        else:
            log.info("no host that is told of is left out any more")


async def _resolved(host: HostConfig) -> list[HostConfig]:
    """One host for each address, named after the name and the address."""
    parts = urlsplit(host.url.removeprefix(DNS))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = sorted({str(row[4][0]) for row in found})
    return [
        dataclasses.replace(
            host,
            name=f"{host.name}-{address.replace(':', '-')}"[:63].rstrip("-."),
            url=f"{parts.scheme}://{f'[{address}]' if ':' in address else address}:{port}{parts.path}",
            vram_bytes=0,  # as before: of one host, and these are several
            server_name=host.server_name or (parts.hostname or "" if parts.scheme == "https" else ""),
        )
        for address in addresses
    ]


def configured(config: Config, moved: Callable[[Load | Unload], None]) -> Fleet:
    """The fleet to start with: hosts that stand in the configuration themselves. ``moved`` is told of models that come and go."""
    hosts = [host_of(host) for host in config.hosts if not host.url.startswith(DNS)]
    health = config.health
    breaker = BreakerPolicy(health.failures, health.eject_seconds, health.eject_max_seconds)
    return Fleet(hosts, breaker, moved, config.reloads)


def tell_changes(before: Iterable[Host], now: Iterable[Host]) -> None:
    """A line in the log where anything changed: ``hosts: added gpu3; changed gpu1 (slots); removed gpu2``."""
    old, new = {host.name: host for host in before}, {host.name: host for host in now}
    changed = [
        f"{name} ({', '.join(keys)})"
        for name, host in new.items()
        if name in old
        and (keys := [key for key in Host.__struct_fields__ if getattr(host, key) != getattr(old[name], key)])
    ]
    words = {
        "added": [name for name in new if name not in old],
        "changed": changed,
        "removed": [name for name in old if name not in new],
    }
    if told := "; ".join(f"{word} {', '.join(names)}" for word, names in words.items() if names):
        log.info("hosts: %s", told)


def host_of(host: HostConfig) -> Host:
    """A host as it is configured."""
    headers = tuple(host.headers.items())
    link = Link(host.ca, host.cert, host.key, not host.insecure_skip_verify, host.server_name, headers)
    return Host(host.name, host.url, host.slots, host.tags, host.vram_bytes, link)


def _unique(found: Iterable[HostConfig]) -> tuple[tuple[Host, ...], tuple[str, ...]]:
    """The first of each name and of each place, at most HOSTS_LIMIT; and of the others, each once, why not."""
    hosts: dict[str, Host] = {}
    places: dict[str, str] = {}
    left_out: dict[str, None] = {}
    for host in found:
        taken = hosts.get(host.name)
        if taken is not None and taken.url == host.url:
            continue
        where = f"{host.name} at {host.url}"
        if taken is not None:
            left_out[f"{where}: the name is that of {taken.url}"] = None
        elif (other := places.get(place_of(host.url))) is not None:
            left_out[f"{where}: that is {other}"] = None
        elif len(hosts) >= HOSTS_LIMIT:
            left_out[f"{where}: there are {HOSTS_LIMIT} hosts already"] = None
        else:
            places[place_of(host.url)] = host.name
            hosts[host.name] = host_of(host)
    return tuple(hosts.values()), tuple(left_out)
