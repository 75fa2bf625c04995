"""A teacher's Google grant may be kept encrypted beside the connection, where a secret costs 0.40 dollars a month."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the ciphertext. Code from before goes on with secrets, which connections keep."""
    comment = "The OAuth grant, encrypted with the stack's key for this id"
    op.add_column(
        "calendar_connections", sa.Column("token_ciphertext", sa.LargeBinary(), comment=comment), schema="tutoring"
    )
    op.alter_column(
        "calendar_connections",
        "secret_id",
        existing_type=sa.Text(),
        comment="The secret with the OAuth grant, where there is no ciphertext",
        schema="tutoring",
    )
