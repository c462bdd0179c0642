"""Limits of keys, and what each key has used of them."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """A column and a table."""
    op.add_column("keys", Column("limits", Text, nullable=False, server_default="{}"))
    op.create_table(
        "key_usage",
        Column("day", Integer, autoincrement=False, nullable=False),
        Column("principal", String(128), nullable=False),
        Column("replica", String(40), nullable=False),
        Column("requests", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("minute_requests", Integer, nullable=False),
        Column("minute_tokens", BigInteger, nullable=False),
        Column("running", Integer, nullable=False),
        Column("seen_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("day", "principal", "replica", name="pk_key_usage"),
    )
