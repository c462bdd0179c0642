"""Keys that were revoked stay, as names that belonged to somebody."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """One column. An older gateway beside this one takes a revoked key for a good one: upgrade all before the next is revoked."""
    op.add_column("keys", Column("revoked_us", BigInteger, nullable=False, server_default="0"))
