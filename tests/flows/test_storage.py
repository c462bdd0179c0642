"""A gateway and its database: relaying goes on whatever becomes of it, and both health endpoints say how it is."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.fleet.snapshot import FleetSnapshot
from tests.builders import TEXT, call, simulated
from tests.conftest import Corral
from tests.contract.raw import ask
from tests.sockets import until
from tests.stage import Stage
from tests.store.recorded import hold, numbered


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


async def test_every_request_is_kept(corral: Corral, database_file: Path, file_url: str) -> None:
    """Those that were answered and those that nobody could serve; with them the metrics say what waits and what is written."""
    stage = await corral(simulated(), database={"url": file_url})
    for model in (TEXT, "made-up", TEXT):
        await stage.ask(call("/api/chat", model, tokens=3))
    records = await stage.records.until(3)
    await stage.quiet()
    assert await stage.totals("corral_db_queue_limit") == {(): 50_000}
    await until(lambda: stage.gateway.keeper and stage.gateway.keeper.records.depth == 0)
    assert await stage.totals("corral_db_records_total", "outcome") == {"written": 3}
    with closing(sqlite3.connect(database_file)) as file:
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


async def test_relaying_goes_on_without_it(corral: Corral, database_file: Path) -> None:
    """While another process holds the file, and records come by the hundred: every answer is whole, and all is written afterwards."""
    stage = await corral(simulated(), database={"url": f"sqlite:///{database_file}"})
    keeper = stage.gateway.keeper
    assert keeper is not None
    with closing(await hold(database_file)) as other:
        for number in range(20):
            for one in numbered(50):
                keeper.put(one)
            assert (await stage.ask(call("/api/chat", tokens=3, stream=bool(number % 2)))).status == 200
        await stage.records.until(20)
        await stage.quiet()
        await until(lambda: keeper.records.depth == 1020)
        assert await stage.totals("corral_db_queue_depth") == {(): 1020}
        other.execute("ROLLBACK")
    await until(lambda: keeper.records.depth == 0, 20.0)
    assert await stage.totals("corral_db_records_total", "outcome") == {"written": 1020}


async def test_the_end_writes_what_waits(corral: Corral, database_file: Path) -> None:
    """A stop loses nothing."""
    stage = await corral(simulated(), database={"url": f"sqlite:///{database_file}"})
    for _ in range(3):
        await stage.ask(call("/api/chat", tokens=3))
    await stage.records.until(3)
    await stage.finish()
    with closing(sqlite3.connect(database_file)) as file:
        assert file.execute("SELECT count(*), (SELECT sum(n) FROM rollup_1h) FROM requests").fetchone() == (3, 3)


async def test_what_was_learned_is_there_at_the_next_start(corral: Corral, file_url: str) -> None:
    """Before any request: how long the model takes to load there, and all else, so that the first decision is as good as the last one."""
    slow, fast = simulated("slow", load_bytes_per_second=5e8), simulated("fast")
    first = await corral(slow, fast, database={"url": file_url})
    for host in ("slow", "fast"):
        assert (await first.ask(call("/api/chat", tokens=9, headers={"X-Corral-Host": host}))).status == 200
    await first.quiet()
    await first.polled()
    before = first.gateway.fleet.snapshot(0.0)
    assert before.hosts[0].vram_seen > 0
    assert before.hosts[0].estimates[digest(before)].load_seconds > 0.1
    await first.finish()
    slow.scheduler.forget()
    fast.scheduler.forget()

    again = await corral(slow, fast, database={"url": file_url})
    keeper = again.gateway.keeper
    assert keeper is not None
    await keeper.measurements.recalled.wait()
    after = again.gateway.fleet.snapshot(0.0)
    for old, new in zip(before.hosts, after.hosts, strict=True):
        assert (new.estimates, new.service_seconds, new.load_rate) == (
            old.estimates,
            old.service_seconds,
            old.load_rate,
        )
        assert (new.vram_seen, new.models_seen) == (old.vram_seen, old.models_seen)
    assert (after.lengths, after.sizes) == (before.lengths, before.sizes)
    row = json.loads((await again.operate("GET", "/api/models/servers")).body)["servers"][0]
    assert row["learned"][0]["load_seconds"] > 0.1
    answer = await again.ask(call("/api/chat", tokens=9))
    assert answer.get("X-Corral-Host") == "fast"


def digest(fleet: FleetSnapshot) -> str:
    """The model's."""
    return fleet.hosts[0].digest_of(TEXT) or ""
