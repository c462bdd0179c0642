"""``corral status``: how a gateway and its hosts are, in words or JSON, and as an exit code."""

from typing import Any

from gateway.top.look import Look, SeenHost
from gateway.top.words import plain

WELL, DEGRADED, UNREACHABLE = 0, 1, 2
"""The exit codes."""

_STATES = ("well", "degraded", "unreachable")


def verdict(look: Look) -> tuple[int, list[str]]:
    """The exit code, and what is not well. A host that drains was told to: it is well, as long as another takes requests."""
    amiss = [f"{host.name} is {host.health}: {host.why}" for host in look.fleet.hosts if not host.well]
    if look.readiness.draining:
        amiss.append("the gateway is stopping")
    elif not look.readiness.ready:
        amiss.append("no host takes requests")
    if look.readiness.storage == "degraded":
        amiss.append("the database does not take what is to be kept")
    return (DEGRADED if amiss else WELL), amiss


def status(url: str, look: Look) -> dict[str, Any]:
    """All fields of the JSON (docs/operations.md)."""
    code, amiss = verdict(look)
    return {
        "gateway": url,
        "state": _STATES[code],
        "amiss": amiss,
        "version": look.scrape.version,
        "ready": look.readiness.ready,
        "stopping": look.readiness.draining,
        "storage": look.readiness.storage,
        "in_flight": len(look.generations) - look.queued,
        "queued": look.queued,
        "hosts": [_host(host) for host in look.fleet.hosts],
        "findings": [{"kind": finding.kind, "text": finding.text} for finding in look.fleet.findings],
    }


def unreachable(url: str, why: str) -> dict[str, Any]:
    """The same where there is nobody to ask."""
    return {"gateway": url, "state": _STATES[UNREACHABLE], "amiss": [why]}


def in_words(told: dict[str, Any]) -> str:
    """The same for people: a line for the gateway, one for each host, one for each thing that is amiss."""
    lines = [f"{told['gateway']}: {told['state']}"]
    if told["state"] != _STATES[UNREACHABLE]:
        lines[0] += f", {told['in_flight']} in flight, {told['queued']} queued"
    for host in told.get("hosts", ()):
        draining = ", draining" if host["draining"] else ""
        loaded = ", ".join(host["loaded"]) or "nothing"
        lines.append(
            f"  {host['name']:12} {host['health']}{draining}, {host['leases']}/{host['slots']} slots, loaded: {loaded}"
        )
    lines += [f"  ! {text}" for text in told["amiss"]]
    lines += [f"  ~ {finding['text']}" for finding in told.get("findings", ())]
    return "\n".join(map(plain, lines))


def _host(host: SeenHost) -> dict[str, Any]:
    return {
        "name": host.name,
        "url": host.url,
        "health": host.health,
        "why": host.why,
        "draining": host.draining,
        "version": host.version,
        "latency_seconds": host.latency_seconds,
        "slots": host.slots,
        "leases": host.leases,
        "loaded": [model.name for model in host.models_loaded],
    }
