"""What the fleet has measured of its hosts and models."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, String, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """One table."""
    op.create_table(
        "measured",
        Column("host", String(64), primary_key=True),
        Column("digest", String(128), primary_key=True),
        Column("what", String(20), primary_key=True),
        Column("url", Text, nullable=False),
        Column("value", Double, nullable=False),
        Column("weight", Double, nullable=False),
        Column("measured_us", BigInteger, nullable=False),
    )
