"""A gateway and its database: relaying goes on whatever becomes of it, and both health endpoints say how it is."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.sockets import until
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


async def test_every_request_is_kept(corral: Corral, tmp_path: Path) -> None:
    """Those that were answered and those that nobody could serve; with them the metrics say what waits and what is written."""
    url = f"sqlite:///{tmp_path}/corral.db"
    stage = await corral(simulated(), database={"url": url})
    for model in (TEXT, "made-up", TEXT):
        await stage.ask(call("/api/chat", model, tokens=3))
    records = await stage.records.until(3)
    await stage.quiet()
    assert await stage.totals("corral_store_queue_capacity") == {(): 50_000}
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    assert await stage.totals("corral_store_records_total", "result") == {"written": 3}
    with closing(sqlite3.connect(tmp_path / "corral.db")) as file:
        rows = file.execute("SELECT id, outcome, model, detail IS NULL FROM requests ORDER BY ts_us").fetchall()
        assert rows == [(one.id, one.outcome, one.model, one.outcome == "ok") for one in records]
        sums = file.execute("SELECT model, outcome, sum(n), sum(output_tokens) FROM rollup_1m GROUP BY 1, 2").fetchall()
        assert sorted(sums) == [("_unknown", "client_error", 1, 0), (TEXT, "ok", 2, 6)]


async def test_a_database_that_is_not_there(corral: Corral, tmp_path: Path) -> None:
    """Degraded, but ready: requests are relayed."""
    (tmp_path / "file").write_text("where a folder should be")
    stage = await corral(simulated(), database={"url": f"sqlite:///{tmp_path}/file/corral.db"})
    ready, storage, status, why = await told(stage)
    assert (ready, storage, status) == (200, "degraded", 503)
    assert "File exists" in why or "Not a directory" in why
    assert (await stage.ask(call("/api/chat", tokens=3))).status == 200
