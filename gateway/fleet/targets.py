"""Which hosts an operation on models concerns. Pure.

| operation          | hosts                                                                         |
|--------------------|-------------------------------------------------------------------------------|
| pull, create       | those of the first placement rule that matches the model, else all            |
| blob               | all: a blob has no model's name                                               |
| copy, delete       | those that have the model; nobody: any one, which says so in Ollama's words   |
| push               | one that has the model: the first that is healthy and not draining, if any;   |
|                    | nobody: as above                                                              |

A caller who names hosts gets these in place of a rule's. An ejected host is left out and named, unless all are ejected: then they are
asked in spite of it. If the caller named it, it has failed. A draining host gets nothing new (pull, create, blob) unless the caller names it; a copy or a delete is for it
too, else it would be back with another set of models.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gateway.config import PlacementConfig
from gateway.dialects.names import canonical
from gateway.errors import BadRequest
from gateway.fleet.health import State
from gateway.fleet.host import Host
from gateway.fleet.snapshot import HostView

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Targets:
    """The hosts that are asked, in the configuration's order, and why others that are concerned are not.

    ``by_name``: the caller named all of them. What is not done on one that is left out has not been done then.
    """

    hosts: tuple[Host, ...]
    left_out: Mapping[str, str]
    by_name: bool = False


def pinned(host: str, known: Collection[str]) -> str:
    """The one host that a caller names in X-Corral-Host; "" where none is. Raises BadRequest for an unknown one."""
    if host and host not in known:
        raise BadRequest(f"no host is named {host!r}; there are: {', '.join(known)}")
    return host


def named(header: str, views: Sequence[HostView]) -> Sequence[HostView]:
    """The hosts that a caller names, with commas between; none where all are meant. Raises BadRequest for an unknown one."""
    names = {name.strip() for name in header.split(",")} - {""}
    known = [view.name for view in views]
    if unknown := sorted(names.difference(known)):
        raise BadRequest(f"X-Corral-Hosts: no host is named {unknown[0]!r}; known: {', '.join(known)}")
    return [view for view in views if view.name in names]


def placed(model: str, views: Sequence[HostView], rules: Iterable[PlacementConfig]) -> Sequence[HostView]:
    """The hosts that the first matching rule gives to ``model`` (a canonical name), else all."""
    for rule in rules:
        if named_by(model, rule.models):
            tags = set(rule.tags)
            return [view for view in views if view.name in rule.hosts or not tags.isdisjoint(view.host.tags)]
    return views


def named_by(model: str, patterns: Iterable[str]) -> bool:
    """Whether one of these patterns is for ``model`` (a canonical name)."""
    return any(fnmatchcase(model, _pattern(text)) for text in patterns)


def exactly(views: Sequence[HostView]) -> Targets:
    """All of these but the ejected ones, for a caller who named them."""
    return replace(_of(views, views), by_name=True)


def taking(views: Sequence[HostView]) -> Targets:
    """All of these but the draining and the ejected ones; no host where all are draining."""
    return _of(views, [view for view in views if not view.draining])


def holders(model: str, views: Sequence[HostView]) -> Targets:
    """Every one of these that has ``model`` (a canonical name)."""
    having = [view for view in views if view.available and model in view.available]
    return _of(having, having) if having else _one(views)


def holder(model: str, views: Sequence[HostView]) -> Targets:
    """The one of these that speaks for ``model`` (a canonical name)."""
    return _one([view for view in views if view.available and model in view.available] or views)


def _of(views: Sequence[HostView], fit: Sequence[HostView]) -> Targets:
    up = [view for view in fit if view.health.state is not State.EJECTED] or fit
    asked = {view.name for view in up}
    left_out = {view.name: _why(view) for view in views if view.name not in asked}
    return Targets(tuple(view.host for view in up), left_out)


def _why(view: HostView) -> str:
    return f"ejected: {view.health.why}" if view.health.state is State.EJECTED else "draining"


def _one(views: Sequence[HostView]) -> Targets:
    if not views:
        return Targets((), {})
    return Targets((min(views, key=_rank).host,), {})


def _rank(view: HostView) -> tuple[bool, bool, bool]:
    state = view.health.state
    return state is State.EJECTED, view.draining, state is not State.HEALTHY


def _pattern(text: str) -> str:
    return text.lower() if _WILD.intersection(text) else canonical(text)
