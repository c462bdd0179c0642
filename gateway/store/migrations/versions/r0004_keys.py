"""Keys, who did what, and whose generations are meant where one gateway asks the others to stop some."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, Text, UniqueConstraint

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Two tables and a column."""
    op.create_table(
        "keys",
        Column("name", String(64), nullable=False),
        Column("role", String(16), nullable=False),
        Column("digest", String(64), nullable=False),
        Column("models", Text, nullable=False),
        Column("hosts", Text, nullable=False),
        Column("expires_us", BigInteger, nullable=False),
        Column("created_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("name", name="pk_keys"),
        UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_table(
        "audit",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), autoincrement=True, nullable=False),
        Column("at_us", BigInteger, nullable=False),
        Column("principal", String(128), nullable=False),
        Column("role", String(16), nullable=False),
        Column("client", String(64), nullable=False),
        Column("operation", String(64), nullable=False),
        Column("target", String(256), nullable=False),
        Column("status", Integer, nullable=False),
        PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_at_us", "audit", ["at_us"])
    op.add_column("cancellations", Column("whose", String(128)))
