"""How a gateway is, as words, JSON and exit code."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.status import DEGRADED, UNREACHABLE, WELL, in_words, status, unreachable, verdict
from gateway.top.look import Look, SeenFinding, SeenReadiness
from tests.builders import TEXT, simulated
from tests.conftest import Corral
from tests.processes import corral as process
from tests.sockets import nobody
from tests.top.builders import generation, host, look, model

URL = "http://127.0.0.1:11434"
OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"


@pytest.mark.parametrize(
    ("seen", "code", "amiss"),
    [
        (look(), WELL, []),
        (look(host(), host("gpu2", draining=True)), WELL, []),
        (look(findings=(SeenFinding("few_copies", "x"),)), WELL, []),
        (look(host(health="suspect", why="a reset")), DEGRADED, ["gpu1 is suspect: a reset"]),
        (look(host(draining=True), readiness=SeenReadiness(ready=False)), DEGRADED, ["no host takes requests"]),
        (look(readiness=SeenReadiness(ready=False, draining=True)), DEGRADED, ["the gateway is stopping"]),
        (
            look(readiness=SeenReadiness(ready=True, storage="degraded")),
            DEGRADED,
            ["the database does not take what is to be kept"],
        ),
    ],
)
def test_verdicts(seen: Look, code: int, amiss: list[str]) -> None:
    """What makes it degraded, and what does not."""
    assert verdict(seen) == (code, amiss)
    assert status(URL, seen)["state"] == ("well", "degraded")[code]


def test_words() -> None:
    """A line for each thing; nothing in them that a terminal obeys."""
    seen = look(
        host("gpu1", slots=4, leases=2, models_loaded=(model("a"), model("b\x1b"))),
        host("gpu2", health="ejected", why="cannot connect", draining=True),
        generations=(generation("x"), generation("y", phase="queued")),
        findings=(SeenFinding("few_copies", "a is on gpu1 only"),),
    )
    assert in_words(status(URL, seen)).splitlines() == [
        f"{URL}: degraded, 1 in flight, 1 queued",
        "  gpu1         healthy, 2/4 slots, loaded: a, b\ufffd",
        "  gpu2         ejected, draining, 0/1 slots, loaded: nothing",
        "  ! gpu2 is ejected: cannot connect",
        "  ~ a is on gpu1 only",
    ]
    assert in_words(unreachable(URL, "Connection refused")) == f"{URL}: unreachable\n  ! Connection refused"


def test_every_field_is_documented() -> None:
    """In docs/operations.md."""
    told = status(URL, look())
    fields = [*told, *told["hosts"][0]]
    text = OPERATIONS.read_text(encoding="utf-8").partition("**From a script.**")[2].partition("\n\n**")[0]
    assert [name for name in fields if f"`{name}`" not in text] == []


async def test_the_command(corral: Corral, tmp_path: Path) -> None:
    """In real processes: each exit code, JSON and words."""
    up, down = simulated("gpu1"), simulated("gpu2")
    stage = await corral(up, down, poll={"interval_seconds": 0.05})
    await up.load(TEXT)
    async with process(tmp_path, "status", "--json", "--gateway", stage.url) as well:
        assert await well.ended() == (WELL, "")
    told: dict[str, Any] = json.loads("\n".join(well.lines))
    assert (told["state"], told["amiss"], told["ready"]) == ("well", [], True)
    assert [row["name"] for row in told["hosts"]] == ["gpu1", "gpu2"]

    await down.kill()
    async with asyncio.timeout(5):
        while (await stage.totals("corral_host_up", "host"))["gpu2"]:
            pass
    async with process(tmp_path, "status", "--gateway", stage.url) as degraded:
        assert await degraded.ended() == (DEGRADED, "")
    assert degraded.lines[0] == f"{stage.url}: degraded, 0 in flight, 0 queued"

    with nobody() as url:
        async with process(tmp_path, "status", "--json", OLLAMA_HOST=url) as gone:
            assert await gone.ended() == (UNREACHABLE, "")
    assert json.loads("\n".join(gone.lines)) == {
        "gateway": url,
        "state": "unreachable",
        "amiss": ["Connection refused"],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        ["--gateway", "ftp://gw"],
        ["--gateway", "https://gw", "--ca", "/away.pem"],
        ["--gateway", "https://gw", "--cert-key", "ours.key"],
        ["--gateway", "http://gw", "--ca", "ca.pem"],
    ],
)
def test_nobody_was_asked(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Is no gateway that is degraded: a script would take it for one."""
    assert main(["status", *wrong]) == UNREACHABLE
    assert capsys.readouterr().err.startswith("corral: ")
