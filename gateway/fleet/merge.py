"""Many hosts' lists as one. Pure and order-independent: the same views in any order give the same answer."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.dialects.names import canonical
from gateway.fleet.health import State
from gateway.fleet.host import AvailableModel
from gateway.fleet.snapshot import HostView

Row = Mapping[str, Any]


def tags(views: Iterable[HostView], seen_since: float = float("-inf")) -> list[Row]:
    """One /api/tags row per name, newest first. Where hosts differ under one name: the digest most hosts have, then the newest.

    A host that is down counts with its last inventory, unless it was last seen before ``seen_since``.
    """
    by_name: dict[str, list[AvailableModel]] = {}
    for view in views:
        if view.health.state is State.EJECTED and (view.seen_at is None or view.seen_at < seen_since):
            continue
        for name, model in (view.available or {}).items():
            by_name.setdefault(name, []).append(model)
    rows = [_best(models).row for models in by_name.values()]
    return sorted(rows, key=lambda row: (_instant(row.get("modified_at")), str(row.get("name", ""))), reverse=True)


def _best(models: list[AvailableModel]) -> AvailableModel:
    count = Counter(model.digest for model in models)
    return max(
        models,
        key=lambda model: (count[model.digest], _instant(model.row.get("modified_at")), model.digest, model.name),
    )


def ps(views: Iterable[HostView]) -> list[Row]:
    """One /api/ps row per name and digest, whole, from the host where it expires last; latest expiry first."""
    rows: dict[tuple[str, str], Row] = {}
    for view in views:
        if view.health.state is State.EJECTED:
            continue
        for model in view.loaded.values():
            if not model.row:
                continue
            key = (canonical(model.name), model.digest)
            if key not in rows or _expiry(model.row) > _expiry(rows[key]):
                rows[key] = model.row
    return sorted(rows.values(), key=_expiry, reverse=True)


def _expiry(row: Row) -> tuple[tuple[int, int], str]:
    return _instant(row.get("expires_at")), str(row)


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|[+-]\d\d:\d\d)")


def _instant(text: Any) -> tuple[int, int]:
    """(Unix seconds, nanoseconds) of an RFC 3339 time: hosts write it in their own time zone. Earliest of all if it is none."""
    match = _RFC3339.match(str(text))
    if match is None:
        return (-sys.maxsize, 0)
    try:
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        return (-sys.maxsize, 0)
    return int((moment - _EPOCH).total_seconds()), int((match[2] or "0").ljust(9, "0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def version(views: Iterable[HostView]) -> str | None:
    """The lowest version among hosts that answer: clients gate features upwards on it."""
    versions = [view.version for view in views if view.version and view.health.state is not State.EJECTED]
    return min(versions, key=_version_key) if versions else None


def _version_key(text: str) -> tuple[tuple[int, ...], bool, str]:
    release, _, candidate = text.partition("-")
    numbers = release.split(".")
    return (
        tuple(int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0 for number in numbers),
        not candidate,
        text,
    )


def openai_models(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """/v1/models rows from /api/tags rows, as Ollama derives them: ``created`` is modified_at, ``owned_by`` the namespace."""
    return [openai_model(row) for row in rows]


def openai_model(row: Row) -> dict[str, Any]:
    """One row of /v1/models."""
    name = str(row.get("name", ""))
    owner = name.rpartition("/")[0].rpartition("/")[2] or "library"
    return {"id": name, "object": "model", "created": max(0, _instant(row.get("modified_at"))[0]), "owned_by": owner}
