"""The embedded stack: Schoolbell on one machine, on PostgreSQL and an AWS emulator that are Python packages."""
