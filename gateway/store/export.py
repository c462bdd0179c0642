"""Rows of requests into a file: CSV, or Parquet where pyarrow is installed. A page at a time, however many there are."""

import csv
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sqlalchemy import BigInteger, Boolean, Double, Integer, SmallInteger

from gateway.errors import ConfigError
from gateway.store.engine import Database
from gateway.store.entries import Row
from gateway.store.history import Filter, pages
from gateway.store.schema import requests

STDOUT = Path("-")
GROUP_ROWS = 50_000  # of a Parquet file that are written together


class CsvSink:
    """``-`` is standard output. A first line names the columns; what is unknown is empty, true and false are 1 and 0."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, _part(path)
        self._file: IO[str] = sys.stdout if path == STDOUT else self._part.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)

    def __enter__(self) -> Self:
        self._writer.writerow(Row._fields)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._path == STDOUT:
            self._file.flush()
            return
        self._file.close()
        _settle(self._part, self._path, ended_well=kind is None)

    def write(self, rows: Iterable[Row]) -> None:
        """Some more."""
        for row in rows:
            self._writer.writerow([int(value) if isinstance(value, bool) else value for value in row])


class ParquetSink:
    """Typed columns; ``ts_us`` is a timestamp in UTC. Raises ConfigError where pyarrow is missing."""

    def __init__(self, path: Path) -> None:
        if path == STDOUT:
            raise ConfigError("a Parquet file is not written to standard output: name a file")
        try:
            self._arrow = importlib.import_module("pyarrow")
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ConfigError("Parquet needs pyarrow: pip install '.[parquet]'; --csv works without") from None
        self._path, self._part = path, _part(path)
        self._schema = self._arrow.schema([(column.name, self._type(column.type)) for column in requests.columns])
        self._schema = self._schema.set(0, self._arrow.field("ts_us", self._arrow.timestamp("us", "UTC")))
        self._writer = parquet.ParquetWriter(str(self._part), self._schema, compression="zstd")
        self._rows: list[Row] = []

    def _type(self, kind: Any) -> Any:
        arrow = self._arrow
        types: dict[type, Any] = {
            Boolean: arrow.bool_(),
            Double: arrow.float64(),
            BigInteger: arrow.int64(),
            SmallInteger: arrow.int16(),
            Integer: arrow.int32(),
        }
        return next((made for known, made in types.items() if isinstance(kind, known)), arrow.string())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        _settle(self._part, self._path, ended_well=kind is None)

    def write(self, rows: Iterable[Row]) -> None:
        """Some more."""
        self._rows += rows
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [
            self._arrow.array(values, type=field.type) for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


Sink = CsvSink | ParquetSink
"""Takes rows, and has a file when it ends well; none when it does not."""


async def export(database: Database, wanted: Filter, sink: Sink) -> int:
    """All rows that are wanted, oldest first; how many. Raises StoreUnavailable."""
    count = 0
    with sink:
        async for rows in pages(database, wanted):
            sink.write(rows)
            count += len(rows)
    return count


def _part(path: Path) -> Path:
    """What is written until all is there."""
    return path.with_name(f"{path.name}.part")


def _settle(part: Path, path: Path, *, ended_well: bool) -> None:
    if ended_well:
        part.rename(path)
    else:
        part.unlink(missing_ok=True)
