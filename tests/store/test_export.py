"""Files of requests: all rows, all columns, whole or not at all."""

import csv
import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.errors import ConfigError, StoreUnavailable
from gateway.record import Outcome
from gateway.store.engine import Database
from gateway.store.entries import Row, row
from gateway.store.export import STDOUT, CsvSink, ParquetSink, Sink, export
from gateway.store.history import PAGE, Filter
from tests.components import missing
from tests.store.recorded import NOW, numbered
from tests.store.test_retention import write

EVER = Filter(0, NOW * 2)


async def test_csv(database: Database, tmp_path: Path) -> None:
    """More than a page; what is unknown is empty."""
    records = [*numbered(PAGE + 2), *numbered(1, host=None, reason='said "no",\nreally', received_at=NOW + 60)]
    await write(database, records)
    assert await export(database, EVER, CsvSink(tmp_path / "all.csv")) == PAGE + 3
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [line["id"] for line in rows] == [one.id for one in records]
    assert (rows[0]["ts_us"], rows[0]["stream"], rows[0]["queue_ms"]) == (str(row(records[0], "r").ts_us), "1", "250.0")
    assert (rows[-1]["host"], rows[-1]["reason"]) == ("", 'said "no",\nreally')
    assert tuple(rows[0]) == Row._fields


async def test_csv_to_standard_output(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not wanted is not there."""
    await write(database, [*numbered(2), *numbered(1, outcome=Outcome.NO_HOST)])
    assert await export(database, EVER._replace(outcome="failed"), CsvSink(STDOUT)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), "no_host" in lines[1]) == (2, True)


async def test_parquet(database: Database, tmp_path: Path) -> None:
    """With types, and times that are times."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        missing("pyarrow (pip install pyarrow)")
    records = [*numbered(3, host=None), *numbered(1, received_at=NOW + 1)]
    await write(database, records)
    assert await export(database, EVER, ParquetSink(tmp_path / "all.parquet")) == 4
    table = parquet.read_table(tmp_path / "all.parquet")
    assert tuple(table.column_names) == Row._fields
    got = table.to_pylist()
    assert [one["id"] for one in got] == [one.id for one in records]
    assert (got[0]["host"], got[-1]["host"], got[0]["stream"]) == (None, "gpu1", True)
    assert got[-1]["ts_us"] == datetime.fromtimestamp(NOW + 1, UTC)
    assert await export(database, EVER._replace(model="none"), ParquetSink(tmp_path / "none.parquet")) == 0
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("make", [CsvSink, ParquetSink])
async def test_half_a_file_is_none(database: Database, tmp_path: Path, make: type[CsvSink | ParquetSink]) -> None:
    """What was there stays."""
    if make is ParquetSink and importlib.util.find_spec("pyarrow") is None:
        missing("pyarrow (pip install pyarrow)")
    (tmp_path / "out").write_text("before")
    sink: Sink = make(tmp_path / "out")
    await database.close()
    database.state = type(database.state).DOWN
    with pytest.raises(StoreUnavailable):
        await export(database, EVER, sink)
    assert (tmp_path / "out").read_text() == "before"
    assert not (tmp_path / "out.part").exists()


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to do is said."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install '.\[parquet\]'; --csv works without"):
        ParquetSink(tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="name a file"):
        ParquetSink(STDOUT)
