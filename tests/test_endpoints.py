"""Every endpoint, asked by everybody, where only this machine can reach it and where others can: the table of rights is what happens."""

from typing import Any

import pytest

from gateway.access.keys import digest, make
from gateway.access.rights import ANONYMOUS, NEEDS, RIGHTS, KeyRole, Right
from gateway.keyconfig import KeyConfig
from tests.builders import simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Stage

NAMES = {"user": KeyRole.USER, "another user": KeyRole.USER, "operator": KeyRole.OPERATOR, "admin": KeyRole.ADMIN}
HELD = {name: make(lambda size, byte=byte: bytes([byte]) * size) for byte, name in enumerate(NAMES)}  # type: ignore[misc]
KEYS = tuple(KeyConfig(name.replace(" ", "-"), digest(HELD[name]), role.value) for name, role in NAMES.items())
FILLED = {
    "{id}": "0" * 24,
    "{name}": "nobody",
    "{model}": "nothing",
    "{digest}": "sha256:" + "0" * 64,
    "{key}": "none",
}
WHERE = {"loopback": "127.0.0.1:0", "elsewhere": "0.0.0.0:0"}


def registered(stage: Stage) -> set[str]:
    """``METHOD /path`` of every route that the gateway has, but HEAD beside GET."""
    runner = stage.gateway.listeners._all[0].runner
    assert runner is not None
    router = runner.app.router
    routes = {(route.method, route.resource.canonical) for route in router.routes() if route.resource is not None}
    return {f"{method} {path}" for method, path in routes if method != "HEAD" or ("GET", path) not in routes}


async def staged(corral: Corral, file_url: str, **sections: Any) -> Stage:
    """A gateway that keeps things."""
    stage = await corral(simulated(), database={"url": file_url}, **sections)
    stage.key = HELD["operator"]
    return stage


async def test_no_endpoint_is_missing(corral: Corral, file_url: str) -> None:
    """In the table, nor is one in it that is not there."""
    stage = await staged(corral, file_url)
    assert registered(stage) == set(NEEDS)


def verdict(right: Right, who: str, mode: str, *, keyed: bool, opened: bool) -> int:
    """What the table says: 0 is let in, else the status."""
    if right is Right.NONE or opened:
        return 0
    if who == "nobody":
        return 0 if right in ANONYMOUS[mode] else 401
    if not keyed:
        return 401  # a key that nobody knows
    return 0 if right in RIGHTS[NAMES[who]] else 403


@pytest.mark.parametrize("who", ["nobody", *NAMES])
@pytest.mark.parametrize(
    ("where", "keyed", "anonymous", "mode"),
    [
        ("loopback", False, "auto", "full"),
        ("elsewhere", False, "auto", "inference"),
        ("loopback", True, "auto", "none"),
        ("elsewhere", True, "auto", "none"),
        ("elsewhere", True, "inference", "inference"),
        ("loopback", True, "full", "full"),
    ],
)
async def test_everybody_everywhere(
    corral: Corral, file_url: str, where: str, keyed: bool, anonymous: str, mode: str, who: str
) -> None:
    """Who may not is told so with a 401 or a 403 of Corral's own; everybody else gets what the endpoint says."""
    keys = KEYS if keyed else ()
    stage = await staged(corral, file_url, listen=WHERE[where], keys=keys, access={"anonymous": anonymous})
    assert stage.gateway.access.gate.modes[where == "loopback"] == mode
    if not keyed:
        stage.key = ""
    headers = {"Authorization": f"Bearer {HELD[who]}"} if who in HELD else {}
    wrong = {}
    for endpoint, right in NEEDS.items():
        method, _, path = endpoint.partition(" ")
        for part, value in FILLED.items():
            path = path.replace(part, value)
        answer = await ask(stage.url, method, path, b"", headers)
        refused = answer.get("X-Corral-Error") in ("unauthorized", "not_allowed")
        expected = verdict(right, who, mode, keyed=keyed, opened=mode == "full" and not keyed)
        if (answer.status if refused else 0) != expected:
            wrong[endpoint] = (expected, answer.status, answer.get("X-Corral-Error"))
    assert wrong == {}
