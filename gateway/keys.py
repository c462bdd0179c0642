"""``corral keys``: keys looked after by hand, in the database; a gateway on it knows of them within a second. Each step returns what to print."""

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.access.keys import Key, digest, key_of, make
from gateway.access.limits import Limits, limits_of
from gateway.access.rights import KeyRole
from gateway.config import Config
from gateway.db import opened
from gateway.dialects.request import Priority
from gateway.dialects.urgency import in_words
from gateway.errors import ConfigError, CorralError, StoreUnavailable
from gateway.keyconfig import KEY_NAME, NAME, check_name, check_reach, end_to_come
from gateway.store.audit import Audit, Deed
from gateway.store.keyring import Keyring

ONCE = "it is not kept, and cannot be shown again"
CLOSED = "Where there are keys, callers without one may do nothing; access.anonymous says otherwise"


@asynccontextmanager
async def _keyring(config: Config, step: str = "", name: str = "") -> AsyncIterator[Keyring]:
    """``step``: what is done to the key of that name, and written down."""
    async with opened(config.database, new=True) as database:
        try:
            yield Keyring(database, lambda _: None)
        except StoreUnavailable:
            raise
        except CorralError as error:
            raise ConfigError(error.message) from None
        if step:
            audit = Audit(database)
            audit.put(Deed(time.time(), "", "", "", f"corral keys {step}", name, 200))
            await audit.write()


async def create(
    config: Config,
    name: str,
    role: str,
    models: tuple[str, ...],
    hosts: tuple[str, ...],
    expires: str,
    limited: Mapping[str, Any],
    *,
    again: bool = False,
) -> str:
    """Make a key, and show it this once. ``limited``: as ``limits_of`` takes it; ``again``: though a key of that name was revoked."""
    if not NAME.match(name):
        raise ConfigError(f"{name!r}: {KEY_NAME}")
    if any(one.name == name for one in config.keys):
        raise ConfigError(f"the configuration has a key {name!r}")
    try:
        check_name(name, (one.name for one in config.keys))
        until = end_to_come(expires, time.time())
        check_reach(role, models, hosts)
        limits = limits_of(**limited)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    made = make(os.urandom)
    async with _keyring(config, "create", name) as keyring:
        await keyring.add(
            Key(name, KeyRole(role), digest(made, config.access.pepper), models, hosts, until, time.time(), limits),
            again=again,
        )
    closed = f". {CLOSED}" if config.access.anonymous == "auto" else ""
    return f"{made}\nis the key of {name}: {ONCE}{closed}"


async def limit(config: Config, name: str, limited: Mapping[str, Any]) -> str:
    """Other limits for the same key; those that are left out stay as they are."""
    try:
        async with _keyring(config, "limit", name) as keyring:
            key = await keyring.limit(name, lambda before: limits_of(before, **limited))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return f"{name}: {_limits(key.limits) or 'no limits'}"


async def rotate(config: Config, name: str) -> str:
    """Another key for the same name; the old one is no good any more."""
    made = make(os.urandom)
    async with _keyring(config, "rotate", name) as keyring:
        await keyring.rotate(name, digest(made, config.access.pepper))
    return f"{made}\nis the key of {name} from now on: {ONCE}"


async def revoke(config: Config, name: str) -> str:
    """No good any more."""
    async with _keyring(config, "revoke", name) as keyring:
        await keyring.revoke(name)
    return f"the key of {name} is no good any more. {CLOSED}, also when the last one is revoked"


async def listed(config: Config) -> str:
    """All keys, without what it takes to use them."""
    async with _keyring(config) as keyring:
        kept = await keyring.look()
    keys = (*map(key_of, config.keys), *kept)
    lines = [f"{'name':24} {'role':9} {'made':12} {'expires':18} models, hosts; limits", *map(_line, keys)]
    return "\n".join(lines) if keys else "there are no keys: corral keys create NAME makes one"


def hashed(config: Config) -> str:
    """A key for the configuration, and the lines that go there."""
    made = make(os.urandom)
    return f'{made}\nis a key: {ONCE}. In corral.toml:\n\n[[keys]]\nname = ""\nrole = "user"\nhash = "{digest(made, config.access.pepper)}"'


def _line(key: Key) -> str:
    made = _day(key.created) or "configured"
    good = ", ".join((*(key.models or ("all",)), *(f"at {host}" for host in key.hosts)))
    limits = _limits(key.limits)
    until = f"revoked {_day(key.revoked)}" if key.revoked else _day(key.expires - 1) or "never"
    return f"{key.name:24} {key.role:9} {made:12} {until:18} {good}{limits and f'; {limits}'}"


def _limits(limits: Limits) -> str:
    rates = ((limits.rpm, "rpm"), (limits.tpm, "tpm"), (limits.concurrency, "at a time"))
    words = [f"{most} {what}" for most, what in rates if most] + list(limits.budgets)
    if limits.priority is not Priority.INTERACTIVE:
        words.append(f"at most {in_words(limits.priority)}")
    if limits.share != 1:
        words.append(f"share {limits.share:g}")
    return ", ".join(words)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds > 0 else ""
