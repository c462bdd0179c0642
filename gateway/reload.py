"""Taking in a changed configuration without a restart: on SIGHUP, or when its file has changed."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.errors import ConfigError

log = logging.getLogger(__name__)
LIVE = frozenset(
    (
        "hosts",
        "placement",
        "keys",
        "access",
        "account_host",
        "pin",
        "warm",
        "discovery",
        "http.origins",
        "http.allowed_hosts",
        "http.trusted_proxies",
    )
)
"""Keys and sections that can change while it runs."""


class Reloader:
    """``load`` reads the configuration as the start did; ``apply`` takes it. What cannot be used changes nothing, and is logged.

    ``successful``: whether the last load was; ``reloads``, ``failures``: how many were, and were not, after the start.
    """

    def __init__(
        self, config: Config, load: Callable[[], Config], file: Path | None, apply: Callable[[Config], None]
    ) -> None:
        self._config = config
        self._load = load
        self._file = file
        self._apply = apply
        self._seen = self._signature()
        self.successful = True
        self.reloads = self.failures = 0

    def look(self) -> None:
        """Reload if the file has changed since the last look."""
        seen = self._signature()
        if seen != self._seen:
            self.reload()

    def reload(self) -> None:
        """Read it all again. The LIVE keys take effect now; of other changes the log says that they need a restart."""
        self._seen = self._signature()
        try:
            config = self._load()
        except ConfigError as error:
            self.successful = False
            self.failures += 1
            log.error("the configuration stays as it was: %s", error.message)  # noqa: TRY400 - the message says it all
            return
        self.successful = True
        self.reloads += 1
        self._config, waiting = merged(self._config, config)
        if waiting:
            log.warning("changed, but in force only after a restart: %s", ", ".join(waiting))
        self._apply(self._config)
        log.info("configuration read again")

    def _signature(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            seen = self._file.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino


def merged(old: Config, new: Config) -> tuple[Config, list[str]]:
    """What is in force once ``new`` was read: ``old`` with the live keys of ``new``; and the other keys that differ."""
    values: dict[str, Any] = {}
    waiting: list[str] = []
    for field in dataclasses.fields(Config):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after or field.name in LIVE:
            values[field.name] = after
        elif dataclasses.is_dataclass(before) and not isinstance(before, type):
            keys = [
                key.name for key in dataclasses.fields(before) if getattr(before, key.name) != getattr(after, key.name)
            ]
            live = [key for key in keys if f"{field.name}.{key}" in LIVE]
            values[field.name] = dataclasses.replace(before, **{key: getattr(after, key) for key in live})
            waiting += [f"{field.name}.{key}" for key in keys if key not in live]
        else:
            waiting.append(field.name)
    return dataclasses.replace(old, **values), waiting
