"""The outbox finds a sender's claim by the index of what is unsent, and each message is written with an index less."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Drops the index of claims. A claim then changes no indexed column, and writes none of the others anew either."""
    op.drop_index("ix_outbox_claimed", "outbox", schema="platform")
