"""By which priority a request waited."""

from alembic import op
from sqlalchemy import Column, String

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """One column. What was written before, and what older gateways write beside this one, counts as normal."""
    op.add_column("requests", Column("priority", String(12), nullable=False, server_default="normal"))
