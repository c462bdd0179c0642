"""Taking in a changed configuration without a restart: on SIGHUP, or when its file has changed."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from gateway.config import Config
from gateway.errors import ConfigError

log = logging.getLogger(__name__)
LIVE = ("hosts", "discovery")


class Reloader:
    """``load`` reads the configuration as the start did; ``apply`` takes it. What cannot be used changes nothing, and is logged."""

    def __init__(
        self, config: Config, load: Callable[[], Config], file: Path | None, apply: Callable[[Config], None]
    ) -> None:
        self._config = config
        self._load = load
        self._file = file
        self._apply = apply
        self._seen = self._signature()

    def look(self) -> None:
        """Reload if the file has changed since the last look."""
        seen = self._signature()
        if seen != self._seen:
            self.reload()

    def reload(self) -> None:
        """Read it all again. Hosts and discovery take effect now; of other changes the log says that they need a restart."""
        self._seen = self._signature()
        try:
            config = self._load()
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error.message)  # noqa: TRY400 - the message says it all
            return
        if waiting := _differing(self._config, config):
            log.warning("changed, but in force only after a restart: %s", ", ".join(waiting))
        live = {name: getattr(config, name) for name in LIVE}
        self._config = dataclasses.replace(self._config, **live)
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


def _differing(old: Config, new: Config) -> list[str]:
    """Keys, as ``section.key``, that differ and cannot be changed while it runs."""
    names: list[str] = []
    for field in dataclasses.fields(Config):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name in LIVE or before == after:
            continue
        if dataclasses.is_dataclass(before):
            inner = (key.name for key in dataclasses.fields(before))
            names += [f"{field.name}.{key}" for key in inner if getattr(before, key) != getattr(after, key)]
        else:
            names.append(field.name)
    return names
