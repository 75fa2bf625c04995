"""Write the next migration from the tables as they are declared: `python -m local.migration "what it does"`."""

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from local.postgres import FAST_AND_FORGETFUL, Postgres
from schoolbell.database import Database, DatabaseAddress
from schoolbell.database.migrations import VERSIONS, generate, upgrade

STATEMENT_TIMEOUT = timedelta(minutes=1)


def write(message: str, folder: Path = VERSIONS) -> Path:
    """Compares the declarations with what the migrations so far make of an empty database, and returns the new file."""
    with tempfile.TemporaryDirectory() as scratch:
        server = Postgres(Path(scratch) / "postgres", settings=FAST_AND_FORGETFUL, lifetime="caller")
        address = DatabaseAddress.from_url(server.start())
        database = Database(lambda: address, STATEMENT_TIMEOUT)
        try:
            with database.engine.connect() as connection:
                upgrade(connection)
                return generate(connection, message, folder)
        finally:
            database.close()
            server.remove()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m local.migration "what it does"')
    print(f"Review {write(sys.argv[1])}")
