"""The domains: what the jobs of each share, and its tables, which are a PostgreSQL schema of the domain's name.

A domain is a folder here with `schema.py`, which names all of its tables, and modules of them in `tables/`. It is found
by its folder: nothing else has to list it. No domain imports another; the tables of `platform` are everybody's.
"""

from pathlib import Path
from typing import Final

DOMAINS: Final = tuple(sorted(found.parent.name for found in Path(__file__).parent.glob("*/__init__.py")))
"""The domains there are, of which a deployment has some. A job's name begins with its domain's."""
