"""Files of hosts that others write, as Prometheus' file_sd has them, with what a host by TLS or behind a proxy needs beside (docs/operations.md)."""

import asyncio
import json
import re
import stat
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from gateway.checked import check_hosts
from gateway.complaint import in_words
from gateway.config import DNS, HostConfig, with_scheme

FILE_LIMIT_BYTES = 1024 * 1024
FILES_SECONDS = 5.0


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry: ``targets`` are ``address:port`` or URLs; ``labels`` may be name, slots and tags (with commas), others are ignored. The other fields are those of
    a configured host, and count for all targets; ``headers_env`` names variables that ``discovery.secrets_env`` lets files name."""

    targets: list[str]
    labels: dict[str, str | int] = {}
    vram_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    ca: str = ""
    server_name: str = ""
    cert: str = ""
    key: str = ""
    insecure_skip_verify: bool = False
    headers: dict[str, str] = {}
    headers_env: dict[str, str] = {}


class HostFiles:
    """Reads them. They may be on a mount that does not answer: so each is read by a thread of its own, that neither the event loop nor its end waits for, and
    nobody else reads a file whose reader is late."""

    def __init__(self) -> None:
        self._late: dict[str, Future[list[HostConfig]]] = {}

    async def read(self, file: str, secrets: Mapping[str, str]) -> list[HostConfig]:
        """Its hosts. Raises TimeoutError where it takes longer than FILES_SECONDS, and then who asks next gets what comes of it; else as ``read_targets``."""
        reading = self._late.pop(file, None) or _begin(Path(file), secrets)
        try:
            async with asyncio.timeout(FILES_SECONDS):
                return await asyncio.wrap_future(reading)
        except TimeoutError:
            if reading.done():
                raise  # the system's own, of a mount
            raise TimeoutError(f"not read within {FILES_SECONDS:g} s") from None
        finally:
            if not reading.done():
                self._late[file] = reading


def _begin(path: Path, secrets: Mapping[str, str]) -> "Future[list[HostConfig]]":
    reading: Future[list[HostConfig]] = Future()
    reading.set_running_or_notify_cancel()  # who waits for it may leave; it goes on
    threading.Thread(target=_read, args=(reading, path, secrets), name="hosts of a file", daemon=True).start()
    return reading


def _read(reading: "Future[list[HostConfig]]", path: Path, secrets: Mapping[str, str]) -> None:
    try:
        reading.set_result(read_targets(path, secrets))
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        reading.set_exception(error)


class _Plain(yaml.SafeLoader):
    """YAML without aliases: a few lines of them, each with several of the one before, would unfold to more than there is memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not taken: write out what they stand for")
        return super().compose_node(parent, index)


def read_targets(path: Path, secrets: Mapping[str, str]) -> list[HostConfig]:
    """The hosts of one file; ``secrets``: values by variable. Raises OSError, ValueError, ConfigError; RecursionError for what is nested too deeply."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep its reader waiting for ever
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        text = file.read(FILE_LIMIT_BYTES + 1)
    if len(text) > FILE_LIMIT_BYTES:
        raise ValueError(f"the file is over {FILE_LIMIT_BYTES} bytes")
    try:
        tree = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Plain)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {str(error).splitlines()[0]}") from None
    try:
        entries = msgspec.convert(tree or [], list[Target])
    except msgspec.ValidationError as error:
        raise ValueError(f"not a list of targets and labels: {in_words(error)}") from None
    hosts = [_host(target, entry, secrets) for entry in entries for target in entry.targets]
    check_hosts(hosts)
    return hosts


def _host(target: str, entry: Target, secrets: Mapping[str, str]) -> HostConfig:
    bare = target.partition("://")[2] or target
    name = str(entry.labels.get("name", "")) if len(entry.targets) == 1 else ""
    slots = str(entry.labels.get("slots", 0))
    if not slots.isdigit():
        raise ValueError(f"{target}: slots = {slots!r} is not a number of requests")
    if target.startswith(DNS):
        raise ValueError(f"{target}: names with several addresses stand in the configuration")
    if unknown := sorted(set(entry.headers_env.values()).difference(secrets)):
        raise ValueError(f"{target}: headers_env: discovery.secrets_env does not name {unknown[0]}")
    return HostConfig(
        name=name or re.sub(r"[^A-Za-z0-9_.-]+", "-", bare.partition("/")[0]).strip("-.")[:63],
        url=with_scheme(target),
        slots=int(slots),
        tags=tuple(tag.strip() for tag in str(entry.labels.get("tags", "")).split(",") if tag.strip()),
        vram_bytes=entry.vram_bytes,
        ca=entry.ca,
        server_name=entry.server_name,
        cert=entry.cert,
        key=entry.key,
        insecure_skip_verify=entry.insecure_skip_verify,
        headers=entry.headers | {header: secrets[variable] for header, variable in entry.headers_env.items()},
    )
