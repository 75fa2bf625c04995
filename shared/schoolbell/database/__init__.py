"""The data layer: connections, table declarations and migrations."""

from schoolbell.database.connection import Database, DatabaseAddress, is_unavailable

__all__ = ["Database", "DatabaseAddress", "is_unavailable"]
