"""The days of ``requests`` on PostgreSQL: a table for each, made ahead and dropped whole, which takes no time however full it is."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

AHEAD_DAYS = 7
MOST_DAYS = 400
DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_NAMES = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'requests'::regclass"


def bounds(day: date) -> tuple[int, int]:
    """Where a day begins and ends, in microseconds since 1970."""
    began = (day - _EPOCH).days * DAY_US
    return began, began + DAY_US


async def days(connection: AsyncConnection) -> dict[date, str]:
    """The days that have a table, and its name."""
    names = (await connection.execute(text(_NAMES))).scalars()
    dated = [name for name in names if name.removeprefix("requests_").isdigit()]
    return {datetime.strptime(name, "requests_%Y%m%d").replace(tzinfo=UTC).date(): name for name in dated}


def ahead(now: float) -> list[date]:
    """Yesterday (clocks differ), today and the days to come."""
    today = datetime.fromtimestamp(now, UTC).date()
    return [today + timedelta(days=number) for number in range(-1, AHEAD_DAYS + 1)]


def between(first_us: int, last_us: int) -> list[date]:
    """The days of two moments and those between, the newest MOST_DAYS."""
    first, last = first_us // DAY_US, last_us // DAY_US
    return [_EPOCH + timedelta(days=number) for number in range(max(first, last - MOST_DAYS + 1), last + 1)]


async def make(connection: AsyncConnection, wanted: Iterable[date]) -> int:
    """Tables for these days; how many were missing. Rows of such a day that came before its table are moved into it."""
    there = await days(connection)
    missing = [day for day in wanted if day not in there]
    if missing:  # nobody may write where we are moving
        await connection.execute(text("LOCK TABLE requests_other IN ACCESS EXCLUSIVE MODE"))
    for day in missing:
        name, (since, until) = f"requests_{day:%Y%m%d}", bounds(day)
        its = f"WHERE ts_us >= {since} AND ts_us < {until}"
        for statement in (
            f"CREATE TABLE {name} (LIKE requests INCLUDING ALL)",
            f"INSERT INTO {name} SELECT * FROM requests_other {its}",  # noqa: S608 - our own numbers and names
            f"DELETE FROM requests_other {its}",  # noqa: S608
            f"ALTER TABLE requests ATTACH PARTITION {name} FOR VALUES FROM ({since}) TO ({until})",
        ):
            await connection.execute(text(statement))
    return len(missing)


async def drop(connection: AsyncConnection, oldest: int) -> list[tuple[int, int]]:
    """Drop the days that ended by ``oldest`` (microseconds) → where they began and ended."""
    over = {day: name for day, name in (await days(connection)).items() if bounds(day)[1] <= oldest}
    for name in over.values():
        await connection.execute(text(f"DROP TABLE {name}"))
    return [bounds(day) for day in over]
