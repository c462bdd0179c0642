"""``corral check``: what is in force, and whether it works."""

import dataclasses
import errno
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from gateway.access.gate import Gate
from gateway.access.keys import Key
from gateway.access.rights import IN_WORDS
from gateway.checked import every_place
from gateway.config import Config
from gateway.db import opened
from gateway.dialects.names import canonical
from gateway.errors import StoreUnavailable
from gateway.fleet.client import HostClient, HostError
from gateway.fleet.discovery import Discovery
from gateway.fleet.host import Host
from gateway.places import Place
from gateway.plural import counted
from gateway.store.connect import without_password
from gateway.store.engine import Database
from gateway.store.keyring import Keyring
from gateway.store.migrate import HEAD
from gateway.warming import pinned

GIGA = 1e9


class Found(NamedTuple):
    """What a host told: the sizes of its models by canonical name, in bytes, and which of them it has in memory."""

    host: Host
    sizes: dict[str, int]
    loaded: frozenset[str]


HIDDEN = "(not shown)"


def effective(config: Config) -> str:
    """The configuration as JSON, passwords and what may be one left out."""
    tree = dataclasses.asdict(config)
    for key in ("url", "direct_url"):
        if "://" in tree["database"][key]:
            tree["database"][key] = without_password(tree["database"][key])
    if tree["access"]["pepper"]:
        tree["access"]["pepper"] = HIDDEN
    for host in tree["hosts"]:
        host["headers"] = dict.fromkeys(host["headers"], HIDDEN)
    tree["discovery"]["secrets"] = dict.fromkeys(tree["discovery"]["secrets"], HIDDEN)
    return json.dumps(tree, indent=2)


async def probe(config: Config) -> bool:
    """Ask every host and the database, and print what they say; whether all is well."""
    hosts = await _hosts(config)
    database, migrated = await _database(config)
    await _access(config, migrated=migrated)
    return _log(config.log.path) and database and hosts


async def _hosts(config: Config) -> bool:
    client = HostClient(config.poll.timeout_seconds, config.relay.connect_timeout_seconds)
    hosts: list[Host] = []
    try:
        discovery = Discovery(config, hosts.extend)
        await discovery.step()
        found = [await _host(client, host) for host in hosts]
    finally:
        await client.close()
    answering = [one for one in found if one is not None]
    kept = (_pins(config, hosts, answering), _warm(config, answering))
    return bool(found) and None not in found and not discovery.failing and all(kept)


async def _host(client: HostClient, host: Host) -> Found | None:
    try:
        version, models, loaded = (
            await client.version(host),
            await client.available(host),
            await client.loaded(host),
        )
    except HostError as error:
        print(f"{host.name:12} {host.url:36} FAILED: {error}")
        return None
    names = ", ".join(model.name for model in loaded) or "none"
    print(f"{host.name:12} {host.url:36} ok: Ollama {version}, {len(models)} models, loaded: {names}")
    sizes = {canonical(model.name): model.size for model in models}
    held = {model.digest for model in loaded}
    return Found(host, sizes, frozenset(canonical(model.name) for model in models if model.digest in held))


def _pins(config: Config, hosts: list[Host], found: list[Found]) -> bool:
    """What a start would do for each pinned model; whether it can. Of a host that does not answer its own line has told."""
    answering, well = {one.host.name: one for one in found}, True
    for name, models in pinned(config.pin).items():
        one = answering.get(name)
        if one is None and name in {host.name for host in hosts}:
            continue
        for model in sorted(models):
            told = f"FAILED: no host is named {name}" if one is None else _pin(one, model)
            well = well and not told.startswith("FAILED")
            print(f"{'pin':12} {f'{model}@{name}':36} {told}")
        needed = sum(one.sizes.get(model, 0) for model in models) if one else 0
        if one and 0 < one.host.vram_bytes < needed:
            print(
                f"{'pin':12} {name:36} FAILED: {needed / GIGA:.1f} GB are pinned to {one.host.vram_bytes / GIGA:.1f} GB"
            )
            well = False
    return well


def _pin(one: Found, model: str) -> str:
    unknown = "" if one.host.vram_bytes else "; without vram_bytes nobody knows what fits beside it"
    if model in one.loaded:
        return f"ok: it is loaded, and is told to stay{unknown}"
    if model in one.sizes:
        return f"ok: it is not loaded; corral serve loads it, {one.sizes[model] / GIGA:.1f} GB on disk{unknown}"
    return "FAILED: the host has not got it: pull it there"


def _warm(config: Config, found: list[Found]) -> bool:
    """How many copies of each warm model there are, and can be."""
    well = True
    for rule in config.warm:
        model = canonical(rule.model)
        having, holding = sum(model in one.sizes for one in found), sum(model in one.loaded for one in found)
        enough = having >= rule.copies
        told = f"{holding} of {rule.copies} copies are loaded, {counted(having, 'host')} with it on disk"
        print(f"{'warm':12} {model:36} {'ok' if enough else 'FAILED'}: {told}")
        well = well and enough
    return well


async def _access(config: Config, *, migrated: bool) -> None:
    """Who may do what, by the keys of the configuration and, if it is ``migrated``, of the database."""
    kept: tuple[Key, ...] = ()
    if migrated:
        async with opened(config.database) as database:
            kept = await Keyring(database, lambda _: None).look()
    gate = Gate(time.time)
    gate.configure(config)
    gate.keep(kept)
    for place in every_place(config):
        print(
            f"{'access':12} {f'without a key, {place}':36} {IN_WORDS[gate.modes[place.near]]}{_lacking(config, place)}"
        )
    for key in (*kept, *gate.configured):
        limits = "; models: " + ", ".join(key.models) if key.models else ""
        limits += "; hosts: " + ", ".join(key.hosts) if key.hosts else ""
        expires = time.strftime("; until %Y-%m-%d", time.gmtime(key.expires - 1)) if key.expires else ""
        print(f"{'access':12} {f'{key.name} ({key.role})':36} {IN_WORDS[key.role]}{limits}{expires}")


def _lacking(config: Config, place: Place) -> str:
    if not config.admin.listen or place.admin:
        return ""
    return f"; metrics, hosts and management are at {config.admin.listen} alone"


def _log(path: str) -> bool:
    """Whether the log can be written. It is not made here: the next who opens it may be another user."""
    if not path:
        return True
    try:
        folder = Path(path).parent
        if Path(path).exists():
            Path(path).open("ab").close()
        elif folder.stat() and not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        print(f"{'log':12} {path:36} FAILED: {error.strerror}")
        return False
    return True


async def _database(config: Config) -> tuple[bool, bool]:
    """Whether it is as it should be, and whether it has this version's tables."""
    if not config.database.kept:
        print(f"{'database':12} none: nothing is kept")
        return True, False
    database = Database(config.database, time.monotonic)
    try:
        found = await database.revision()
    except StoreUnavailable as error:
        print(f"{'database':12} {database.name:36} FAILED: {error.message}")
        return False, False
    finally:
        await database.close()
    if found is None:
        told = "empty: corral serve makes the tables"
    else:
        told = f"{'ok' if found == HEAD else 'corral serve upgrades it'}: revision {found} of {HEAD}"
    print(f"{'database':12} {database.name:36} {told}")
    return True, found == HEAD
