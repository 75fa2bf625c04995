"""An `app.py` is short enough to be read at once, and long SQL stands in a file of its own."""

import ast
from pathlib import Path
from statistics import median
from typing import Final

from local.home import CHECKOUT

MOST_LINES: Final = 200
MEDIAN_LINES: Final = 80
MOST_SQL: Final = 30
"""Lines of a statement in Python."""

MIGRATIONS: Final = "migrations"
APPS: Final = sorted(CHECKOUT.glob("functions/*/*/app.py"))


def long_statements(source: str) -> list[int]:
    """The lines at which SQL of more than `MOST_SQL` lines begins in a Python source."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant | ast.JoinedStr)
        and (node.end_lineno or 0) - node.lineno - 1 > MOST_SQL
        and any(f"{verb} " in ast.unparse(node) for verb in ("SELECT", "INSERT", "UPDATE", "DELETE"))
    ]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_app_is_long() -> None:
    assert {path.parent.name: lines(path) for path in APPS if lines(path) > MOST_LINES} == {}
    assert median(map(lines, APPS)) <= MEDIAN_LINES


def test_long_sql_is_a_file() -> None:
    sources = [*CHECKOUT.glob("functions/**/*.py"), *CHECKOUT.glob("shared/**/*.py")]
    found = {path: long_statements(path.read_text()) for path in sources if MIGRATIONS not in path.parts}
    assert {str(path.relative_to(CHECKOUT)): numbers for path, numbers in found.items() if numbers} == {}


def test_long_sql_in_python_is_noticed() -> None:
    columns = ",\n".join(f"column_{number}" for number in range(MOST_SQL))
    assert long_statements(f'X = 1\nY = text("""\nSELECT {columns}\nFROM somewhere\n""")\n') == [2]
    assert long_statements(f'Y = """\n{columns}\n\n\n"""\n') == []
