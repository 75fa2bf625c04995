"""Long SQL stands in a file of its own, beside the module that runs it, where it can be opened, explained and checked.

At the top of a file stand a sentence on what the statement does, and the types of its parameters:

    -- Count the rules of each teacher.
    -- Parameters: now timestamptz, teachers uuid[]

A line `-- include found.sql` stands for the content of that file, which several statements share. Comments are not
sent. A test prepares every statement on the migrated database.
"""

import re
from pathlib import Path
from typing import Final

from sqlalchemy import TextClause, text

_INCLUDE: Final = re.compile(r"^-- include (\S+)$", re.MULTILINE)
_COMMENT: Final = re.compile(r"^ *--.*\n", re.MULTILINE)


def statement(module: str, name: str) -> TextClause:
    """The statement in a file.

    Args:
        module: the `__file__` of the module that runs it, beside which the file lies.
        name: of the file, e.g. `claim.sql`.
    """
    return text(_COMMENT.sub("", source(Path(module).with_name(name))))


def source(file: Path) -> str:
    """The text of a statement, with what it includes."""
    return _INCLUDE.sub(lambda include: source(file.parent / include[1]), file.read_text("utf-8"))
