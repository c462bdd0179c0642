"""What stands where a database would, if none is configured."""

from contextlib import AbstractAsyncContextManager

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.errors import StoreUnavailable
from gateway.store.engine import Database

NO_DATABASE = "database.url is none, or is empty and there is no home directory"


class NoDatabase:
    """Tells whoever needs one that there is none; trying again would not help."""

    sqlite = True
    up = False

    def writing(self, _seconds: float | None = None) -> AbstractAsyncContextManager[AsyncConnection]:
        """Raises StoreUnavailable."""
        raise StoreUnavailable(f"nothing is kept here: {NO_DATABASE}", retry_after=None)

    reading = writing


Store = Database | NoDatabase
