"""A gateway and its database: relaying goes on whatever becomes of it, and both health endpoints say how it is."""

import json
from pathlib import Path

from tests.builders import call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.stage import Stage


async def told(stage: Stage) -> tuple[int, str, int, str]:
    """(status and storage of /readyz, status and why of /healthz/storage)."""
    ready, storage = await ask(stage.url, "GET", "/readyz"), await ask(stage.url, "GET", "/healthz/storage")
    return ready.status, json.loads(ready.body)["storage"], storage.status, json.loads(storage.body)["why"]


async def test_a_database_that_is_there(corral: Corral, tmp_path: Path) -> None:
    """Made at the start."""
    stage = await corral(simulated(), database={"url": f"sqlite:///{tmp_path}/corral.db"})
    assert await told(stage) == (200, "up", 200, "")
    assert (tmp_path / "corral.db").exists()


async def test_no_database(corral: Corral) -> None:
    """Whoever wants none misses nothing."""
    stage = await corral(simulated())
    assert await told(stage) == (200, "none", 200, "")


async def test_a_database_that_is_not_there(corral: Corral, tmp_path: Path) -> None:
    """Degraded, but ready: requests are relayed."""
    (tmp_path / "file").write_text("where a folder should be")
    stage = await corral(simulated(), database={"url": f"sqlite:///{tmp_path}/file/corral.db"})
    ready, storage, status, why = await told(stage)
    assert (ready, storage, status) == (200, "degraded", 503)
    assert "File exists" in why or "Not a directory" in why
    assert (await stage.ask(call("/api/chat", tokens=3))).status == 200
