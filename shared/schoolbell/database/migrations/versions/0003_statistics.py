"""Statistics of the platform."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Nothing yet."""
