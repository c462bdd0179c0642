"""``corral check``: what is in force, and whether it works."""

import dataclasses
import errno
import json
import os
import time
from pathlib import Path

from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.fleet.client import HostClient, HostError
from gateway.fleet.discovery import Discovery
from gateway.fleet.host import Host
from gateway.store.connect import without_password
from gateway.store.engine import Database
from gateway.store.migrate import HEAD


def effective(config: Config) -> str:
    """The configuration as JSON, passwords left out."""
    tree = dataclasses.asdict(config)
    for key in ("url", "direct_url"):
        if "://" in tree["database"][key]:
            tree["database"][key] = without_password(tree["database"][key])
    return json.dumps(tree, indent=2)


async def probe(config: Config) -> bool:
    """Ask every host and the database, and print what they say; whether all is well."""
    hosts = await _hosts(config)
    database = await _database(config)
    return _log(config.log.path) and database and hosts


async def _hosts(config: Config) -> bool:
    client = HostClient(config.poll.timeout_seconds, config.relay.connect_timeout_seconds)
    hosts: list[Host] = []
    try:
        discovery = Discovery(config, hosts.extend)
        await discovery.step()
        healthy = [await _host(client, host) for host in hosts]
    finally:
        await client.close()
    return bool(healthy) and all(healthy) and not discovery.failing


async def _host(client: HostClient, host: Host) -> bool:
    try:
        version, models, loaded = (
            await client.version(host),
            await client.available(host),
            await client.loaded(host),
        )
    except HostError as error:
        print(f"{host.name:12} {host.url:36} FAILED: {error}")
        return False
    names = ", ".join(model.name for model in loaded) or "none"
    print(f"{host.name:12} {host.url:36} ok: Ollama {version}, {len(models)} models, loaded: {names}")
    return True


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


async def _database(config: Config) -> bool:
    if not config.database.kept:
        print(f"{'database':12} none: nothing is kept")
        return True
    database = Database(config.database, time.monotonic)
    try:
        found = await database.revision()
    except StoreUnavailable as error:
        print(f"{'database':12} {database.name:36} FAILED: {error.message}")
        return False
    finally:
        await database.close()
    if found is None:
        told = "empty: corral serve makes the tables"
    else:
        told = f"{'ok' if found == HEAD else 'corral serve upgrades it'}: revision {found} of {HEAD}"
    print(f"{'database':12} {database.name:36} {told}")
    return True
