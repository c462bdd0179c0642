"""What the configuration says of access and of keys, and whether a key makes sense wherever it stands."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from gateway.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
NOBODY = "anonymous"
KEY_NAME = "letters, digits, '-', '_' and '.', at most 63"
DAY_SECONDS = 24 * 3600.0
FIRST_YEAR = 2020
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
PriorityWord = Literal["interactive", "normal", "background"]
RATE_MOST = 1_000_000  # requests a minute, or at a time
TOKENS_MOST = 10**15
SHARE_LEAST, SHARE_MOST = 0.01, 100.0
_ALIKE = str.maketrans("01i_.", "oll--")
_BUDGET = re.compile(r"(\d{1,16})/(day|month)\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """What callers may do who have no key, and how keys are kept (docs/access.md)."""

    anonymous: Literal["auto", "none", "inference", "full"] = (
        "auto"  # inference: look and infer, but change nothing and see nobody's sessions; auto: none where there are keys, else full on loopback and inference elsewhere
    )
    pepper: str = (
        ""  # a secret of the gateways, under which keys are hashed; whoever changes it makes all keys worthless
    )
    key_in_path: bool = False  # take /k/KEY before a path, for tools that can send a key no other way
    user_keys: tuple[str, ...] = ()  # names of keys whose holders say by X-Corral-User which person asks through them


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A key, as `corral keys hash` prints it: not the key itself, but what is kept of it."""

    name: str  # whose it is: in records, sessions and the log
    hash: str  # HMAC-SHA256 of the key under access.pepper
    role: Literal["user", "operator", "admin"] = (
        "user"  # operator: models, hosts and what others run, too; admin: everything
    )
    models: tuple[str, ...] = ()  # patterns like "llama3*" of models that a user may infer with; empty: all
    hosts: tuple[str, ...] = ()  # patterns of hosts on which; empty: all
    expires: str = ""  # a day like 2027-01-31, until whose end (UTC) it is good; empty: for ever
    rpm: int = 0  # requests to models in any 60 seconds; 0: as many
    tpm: int = 0  # tokens, in and out, in any 60 seconds; 0: as many
    concurrency: int = 0  # requests that wait or run at a time; 0: as many
    budgets: tuple[str, ...] = ()  # tokens of a day and of a month (UTC), like "1000000/day"; empty: as many
    priority: PriorityWord = "interactive"  # the most urgent that its requests can be, whatever they say
    share: float = 1.0  # its weight where others wait too: 2 gets twice the seconds of 1


def likeness(name: str) -> str:
    """The same for names that are taken for each other at a glance: ``Ann`` and ``ann``, ``ci_1`` and ``ci-l``."""
    return name.casefold().translate(_ALIKE)


def check_name(name: str, others: Iterable[str]) -> None:
    """Raises ValueError, in words, for a name that would be taken for another, or for callers without a key. It may be among ``others`` itself."""
    mine = likeness(name)
    if mine == likeness(NOBODY):
        raise ValueError(
            f"the name {name!r} would be taken for callers without a key: {NOBODY} is what they are called"
        )
    if other := next((one for one in others if one != name and likeness(one) == mine), ""):
        raise ValueError(
            f"the name {name!r} would be taken for that of the key {other!r}: choose one that looks otherwise"
        )


def check_access(access: AccessConfig) -> None:
    """Raises ConfigError for what can be no key's name."""
    for name in access.user_keys:
        if not NAME.match(name):
            raise ConfigError(f"access.user_keys: {name!r} is no key's name: {KEY_NAME}")


def check_keys(keys: Iterable[KeyConfig]) -> None:
    """Names, hashes, days and limits. Raises ConfigError."""
    seen: set[str] = set()
    for key in keys:
        if not NAME.match(key.name) or key.name in seen:
            raise ConfigError(f"[[keys]]: name = {key.name!r}: {KEY_NAME}, each once")
        if not _DIGEST.match(key.hash):
            raise ConfigError(f"[[keys]]: the hash of {key.name!r} is not one that `corral keys hash` prints")
        try:
            check_name(key.name, seen)
            end_of(key.expires)
            check_reach(key.role, key.models, key.hosts)
            check_limits(key.rpm, key.tpm, key.concurrency, key.share)
            budgets_of(key.budgets)
        except ValueError as error:
            raise ConfigError(f"[[keys]]: {key.name!r}: {error}") from None
        seen.add(key.name)


def end_of(day: str) -> float:
    """The end of a day like 2027-01-31 (UTC) in Unix seconds; 0 for none. Raises ValueError, in words, also for a year that no key is from."""
    if not day:
        return 0.0
    try:
        found = date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"expires = {day!r} is no day like 2027-01-31") from None
    if found.year < FIRST_YEAR:
        raise ValueError(f"expires = {day!r} is long past")
    return min(datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp() + DAY_SECONDS, LAST)


def end_to_come(day: str, now: float) -> float:
    """The same, of a key that is made now (Unix seconds): a day that is past is a mistake."""
    end = end_of(day)
    if 0 < end <= now:
        raise ValueError(f"expires = {day!r} is past")
    return end


def check_limits(rpm: int, tpm: int, concurrency: int, share: float) -> None:
    """Raises ValueError, in words, for numbers that limit nothing."""
    for name, value, most in (
        ("rpm", rpm, RATE_MOST),
        ("tpm", tpm, TOKENS_MOST),
        ("concurrency", concurrency, RATE_MOST),
    ):
        if not 0 <= value <= most:
            raise ValueError(f"{name} = {value}: at least 1 and at most {most}, or 0 for no limit")
    if not SHARE_LEAST <= share <= SHARE_MOST:
        raise ValueError(f"share = {share:g}: at least {SHARE_LEAST:g} and at most {SHARE_MOST:g}")


def budgets_of(written: Iterable[str], *, zero: bool = False) -> dict[str, int]:
    """Tokens by ``day`` and ``month``, of words like ``1000000/day``. ``zero``: 0 takes a budget away. Raises ValueError, in words."""
    found: dict[str, int] = {}
    for text in written:
        budget = _BUDGET.match(text)
        if budget is None or int(budget[1]) > TOKENS_MOST:
            raise ValueError(
                f"budget {text[:64]!r}: write tokens like 1000000/day or 20000000/month, at most {TOKENS_MOST}"
            )
        if budget[2] in found:
            raise ValueError(f"budget {text!r}: there is another one of a {budget[2]}")
        found[budget[2]] = int(budget[1])
        if not zero and not found[budget[2]]:
            raise ValueError(
                f"budget {text!r} would be none: leave it out for that; a key that shall do nothing is revoked"
            )
    return found


def check_reach(role: str, models: Iterable[str], hosts: Iterable[str]) -> None:
    """Raises ValueError, in words, for a key that could change what it is not good for, and for patterns of nothing."""
    models, hosts = tuple(models), tuple(hosts)
    if not all((*models, *hosts)):
        raise ValueError("models and hosts: a pattern is empty; leave the list out for all")
    if role != "user" and (models or hosts):
        raise ValueError(f"the role {role} is not limited to models or hosts: only a user's key is")
