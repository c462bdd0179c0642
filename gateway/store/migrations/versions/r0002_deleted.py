"""Sessions that are deleted and can be brought back."""

from alembic import op
from sqlalchemy import BigInteger, Column, text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A column, and an index of those that are to be erased."""
    op.add_column("sessions", Column("erase_us", BigInteger))
    op.create_index(
        "ix_sessions_erase_us",
        "sessions",
        ["erase_us"],
        sqlite_where=text("erase_us IS NOT NULL"),
        postgresql_where=text("erase_us IS NOT NULL"),
    )
