"""No key is where it does not belong: not with hosts, not in logs, metrics, spans, rows or errors; however it was sent, good or not."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.access.keys import PREFIX, digest, make
from gateway.keyconfig import KeyConfig
from tests.builders import PATHS, Call, call
from tests.collector import Collector
from tests.conftest import Corral
from tests.contract.raw import Answer, Cut, ask
from tests.scripted import Asked, ScriptedHost
from tests.stage import Stage

ADMIN, USER, WRONG = (make(lambda size, byte=byte: bytes([byte]) * size) for byte in (11, 12, 13))  # type: ignore[misc]
KEYS = (KeyConfig("root", digest(ADMIN), "admin"), KeyConfig("ann", digest(USER)))
DONE = b'{"response":"","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":1}\n'
HEAD = b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
ENDS = {
    "well": lambda: HEAD % (200, len(DONE), DONE),
    "with an error": lambda: HEAD % (500, 15, b'{"error":"bad"}'),
    "as none": lambda: HEAD % (404, 15, b'{"error":"bad"}'),
    "too early": lambda: HEAD % (200, 100, DONE[:50]),
    "at once": lambda: b"",
}
REPEATING = ("Referer", "X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Prefix")
"""In which browsers and proxies tell what was asked for."""
MANAGED = {
    "/api/pull": {"model": "llama3"},
    "/api/show": {"model": "llama3"},
    "/api/me": {},
    "/api/hosts/gpu1/resume": None,
    "/api/keys": {"name": "made", "role": "nothing"},
    "/api/sessions": {"title": 7},
    "/api/route/explain": {"model": "nothing"},
    "/api/nothing": {},
}


def sent(way: str, key: str) -> tuple[str, dict[str, str]]:
    """What comes before the path, and the headers."""
    packed = base64.b64encode(f"me:{key}".encode()).decode()
    return {
        "bearer": ("", {"Authorization": f"Bearer {key}"}),
        "x-api-key": ("", {"X-API-Key": key}),
        "basic": ("", {"Authorization": f"Basic {packed}"}),
        "path": (f"/k/{key}", dict.fromkeys(REPEATING, f"/k/{key}/api/chat")),
    }[way]


async def answered(stage: Stage, method: str, path: str, request: Call) -> Answer | None:
    """The answer; None where it was cut off."""
    try:
        return await ask(stage.url, method, path, request.body, request.headers)
    except (Cut, ConnectionError, asyncio.IncompleteReadError):
        return None


@pytest.mark.parametrize("way", ["bearer", "x-api-key", "basic", "path"])
async def test_no_key_gets_anywhere(corral: Corral, tmp_path: Path, file_url: str, way: str) -> None:
    """Of an admin, of a user whom something is refused, of nobody."""
    ending = ""

    async def answering(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(ENDS[ending]())
        if ending in ("too early", "at once"):
            writer.close()

    host = ScriptedHost("gpu1", answering, {"/api/status?x=1": {}})
    async with Collector() as collector:
        stage = await corral(
            host,
            keys=KEYS,
            access={"key_in_path": True},
            tracing={"endpoint": collector.url, "mode": "all", "capture_content": True},
            log={"level": "debug", "access": True, "path": str(tmp_path / "corral0.log")},
            database={"url": file_url},
        )
        stage.key = ADMIN
        said: list[str] = []
        for ending in ENDS:  # noqa: B007 - the host reads it
            for key in (ADMIN, USER, WRONG):
                before, headers = sent(way, key)
                calls = [("POST", path, call(path)) for path in PATHS]
                calls += [
                    ("POST", path, Call(path, b"" if body is None else json.dumps(body).encode()))
                    for path, body in MANAGED.items()
                ]
                calls += [
                    ("GET", path, Call(path, b"")) for path in ("/api/status", "/api/keys", "/api/audit", "//api")
                ]
                for method, path, request in calls:
                    each = Call(path, request.body, request.headers | headers)
                    answer = await answered(stage, method, f"{before}{path}?x=1", each)
                    if answer is not None and path != "//api":  # which leads back to where it was asked
                        said.append(repr(answer))
        said += [(asked.head + asked.body).decode("latin-1") for asked in host.asked]
        said += [
            (await stage.operate("GET", path)).body.decode() for path in ("/metrics", "/api/fleet", "/api/requests")
        ]
        await stage.finish()
    said.append((tmp_path / "corral0.log").read_text(encoding="utf-8"))
    said += [body.decode("latin-1") for _, _, body in collector.requests]
    said += _stored(tmp_path)
    _nowhere(said)
    assert len(host.asked) > 5 * len(PATHS)
    assert collector.spans


def _stored(folder: Path) -> list[str]:
    return [file.read_bytes().decode("latin-1") for file in folder.glob("corral.db*")]


def _nowhere(said: list[str]) -> None:
    for key in (ADMIN, USER, WRONG):
        packed = base64.b64encode(f"me:{key}".encode()).decode()
        for form in (key, key.removeprefix(PREFIX), packed):
            assert [text[:300] for text in said if form in text] == []


def test_a_key_can_be_seen() -> None:
    """The test itself."""
    with pytest.raises(AssertionError):
        _nowhere([f"x{USER}y"])


async def test_a_wrong_key_is_not_repeated(corral: Corral) -> None:
    """In the error that says so."""
    stage = await corral(ScriptedHost("gpu1", _silent), keys=KEYS)
    stage.key = ADMIN
    answers: list[Any] = [
        await ask(stage.url, "GET", "/api/tags", b"", {"x-api-key": key}) for key in (WRONG, PREFIX + "x" * 4000)
    ]
    assert [answer.status for answer in answers] == [401, 401]
    assert all(PREFIX not in repr(answer) for answer in answers)


async def _silent(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()
