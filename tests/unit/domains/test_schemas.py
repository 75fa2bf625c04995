"""A domain's SQL keeps to the domain's own schema: what the platform keeps for all is written by functions of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.home import CHECKOUT
from schoolbell.domains import DOMAINS

PACKAGES = ("functions", "shared/schoolbell/domains")
NAMED = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|USING|LATERAL|EXISTS \()\s+(?:ONLY\s+)?([a-z_]+)\.[a-z_]+")


def texts(file: Path) -> Iterator[str]:
    """The SQL that may be in a file: of Python, its texts."""
    if file.suffix == ".sql":
        yield file.read_text()
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def schemas_named(file: Path) -> set[str]:
    """The domains whose tables a file's SQL names."""
    return {schema for text in texts(file) for schema in NAMED.findall(text) if schema in DOMAINS}


def files() -> list[tuple[str, Path]]:
    """The files of each domain that may hold SQL."""
    return [
        (domain, file)
        for package in PACKAGES
        for domain in DOMAINS
        for file in sorted((CHECKOUT / package / domain).rglob("*"))
        if file.suffix in (".py", ".sql")
    ]


def test_the_sql_of_a_domain_names_no_table_of_another() -> None:
    wrong = [f"{file.relative_to(CHECKOUT)}: {schemas_named(file) - {domain}}" for domain, file in files()]
    assert [each for each in wrong if not each.endswith("set()")] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.sql", "INSERT INTO platform.notifications (id) SELECT id FROM tutoring.sessions"),
        ("two.sql", "SELECT 1\n  FROM tutoring.sessions AS a\n  JOIN platform.triggers USING (id)"),
        ("three.py", '_ADD = text("""\n    UPDATE platform.alerts SET status = \'x\'\n""")'),
    ],
)
def test_a_table_of_another_domain_is_noticed(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert "platform" in schemas_named(file)


def test_every_domain_that_has_sql_is_looked_at() -> None:
    assert {domain for domain, file in files() if schemas_named(file)} >= {"platform", "tutoring"}
