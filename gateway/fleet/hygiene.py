"""What is amiss with a fleet as a whole, though each host is well: pure, from one snapshot."""

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import msgspec

from gateway.config import PlacementConfig
from gateway.doc import doc
from gateway.fleet.snapshot import FleetSnapshot, HostView
from gateway.fleet.targets import placed


class FindingKind(StrEnum):
    """What can be amiss (a metric label)."""

    VERSION_SKEW = "version_skew"  # hosts run different versions of Ollama
    DIGEST_SKEW = "digest_skew"  # one name is different models on different hosts
    FEW_COPIES = "few_copies"  # a model is on one host only, though it is for several: nothing can take over
    CONTEXT_SKEW = "context_skew"  # one model is loaded with different contexts, by the hosts' own defaults
    GHOST_MODEL = "ghost_model"  # a host lists a model that it then says it has not


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One thing that is amiss."""

    kind: Annotated[
        FindingKind,
        doc(
            "`version_skew`: hosts run different versions of Ollama; `digest_skew`: one name is different models; `few_copies`: "
            "a model is on one host only, unless a placement rule has it so; `context_skew`: one model is loaded with different contexts, by the hosts' own "
            "defaults; `ghost_model`: a host lists a model that it then says it has not"
        ),
    ]
    model: Annotated[str, doc("the model's full name; empty where it is about hosts")]
    hosts: Annotated[tuple[str, ...], doc("the hosts that it is about")]
    text: Annotated[str, doc("the same in words")]


def findings(snapshot: FleetSnapshot, rules: Iterable[PlacementConfig]) -> list[Finding]:
    """All that is amiss, in the order of ``FindingKind``. ``rules`` say of models where they are meant to be."""
    hosts = snapshot.hosts
    return [*_versions(hosts), *_digests(hosts), *_copies(hosts, tuple(rules)), *_contexts(hosts), *_ghosts(hosts)]


def _versions(hosts: Iterable[HostView]) -> Iterable[Finding]:
    by_version = _grouped((host.version, host.name) for host in hosts if host.version)
    if len(by_version) > 1:
        told = _listed(by_version)
        yield Finding(FindingKind.VERSION_SKEW, "", _all(by_version), f"hosts run different versions of Ollama: {told}")


def _digests(hosts: Iterable[HostView]) -> Iterable[Finding]:
    by_model: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for host in hosts:
        for name, model in (host.available or {}).items():
            by_model[name].append((model.digest[:12], host.name))
    for name, rows in sorted(by_model.items()):
        by_digest = _grouped(rows)
        if len(by_digest) > 1:
            text = f"{name} is not the same model everywhere: {_listed(by_digest)}"
            yield Finding(FindingKind.DIGEST_SKEW, name, _all(by_digest), text)


def _copies(hosts: tuple[HostView, ...], rules: tuple[PlacementConfig, ...]) -> Iterable[Finding]:
    telling = [host for host in hosts if host.available is not None]
    by_model = _grouped((name, host.name) for host in telling for name in host.available or ())
    for name, having in sorted(by_model.items()):
        if len(having) == 1 and len(placed(name, telling, rules)) > 1:
            yield Finding(
                FindingKind.FEW_COPIES, name, having, f"{name} is on {having[0]} only: no other host can take over"
            )


def _contexts(hosts: Iterable[HostView]) -> Iterable[Finding]:
    by_digest: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for host in hosts:
        for digest, model in host.loaded.items():
            if model.context and "num_ctx" not in dict(host.runners.get(digest, ())):
                by_digest[digest].append((f"{model.context} tokens", host.name, model.name))
    for rows in by_digest.values():
        by_context = _grouped((context, host) for context, host, _ in rows)
        if len(by_context) > 1:
            text = f"{rows[0][2]} is loaded with different contexts: {_listed(by_context)}; set OLLAMA_CONTEXT_LENGTH alike"
            yield Finding(FindingKind.CONTEXT_SKEW, rows[0][2], _all(by_context), text)


def _ghosts(hosts: Iterable[HostView]) -> Iterable[Finding]:
    for name, having in sorted(_grouped((model, host.name) for host in hosts for model in host.ghosts).items()):
        yield Finding(
            FindingKind.GHOST_MODEL,
            name,
            having,
            f"{', '.join(having)} listed {name}, then answered that it is not there",
        )


def _grouped(rows: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for key, host in rows:
        groups[key] = (*groups.get(key, ()), host)
    return groups


def _listed(groups: dict[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{key} on {', '.join(hosts)}" for key, hosts in sorted(groups.items()))


def _all(groups: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(host for hosts in groups.values() for host in hosts)
