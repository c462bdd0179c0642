"""What stands where a database would, if none is configured."""

from contextlib import AbstractAsyncContextManager

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.store.engine import Database


class NoDatabase:
    """Tells whoever needs one that there is none; trying again would not help."""

    sqlite = True
    up = False

    def writing(self, _seconds: float | None = None) -> AbstractAsyncContextManager[AsyncConnection]:
        """Raises StoreUnavailable."""
        raise StoreUnavailable("no database is configured, so nothing is kept: set database.url", retry_after=None)

    reading = writing


Store = Database | NoDatabase
