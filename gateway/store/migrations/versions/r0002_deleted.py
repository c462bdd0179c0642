"""Sessions that are deleted and can be brought back; how long an answer was thought about."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Two columns, and an index of those that are to be erased."""
    op.add_column("sessions", Column("erase_us", BigInteger))
    op.create_index(
        "ix_sessions_erase_us",
        "sessions",
        ["erase_us"],
        sqlite_where=text("erase_us IS NOT NULL"),
        postgresql_where=text("erase_us IS NOT NULL"),
    )
    op.add_column("messages", Column("thinking_ms", Double))
