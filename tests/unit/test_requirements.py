"""docs/requirements.md names a test that exists, or says why there is none, for every rule."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/requirements.md").read_text()
ROW = re.compile(r"^- `(?P<id>[A-Z]{3}-[A-Z]{2}-\d+)` (?P<text>.+?)(?=\n- `|\n\n|\Z)", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"^  Test: `(?P<path>tests/[\w/]+\.py)::(?P<name>test_\w+)(?:\[(?P<case>[\w.]+)\])?`$", re.MULTILINE)
STATUS = re.compile(r"\b(?:Not built yet[.:]|Replaced: \w|No test: \w)")
ROWS = {row["id"]: row["text"] for row in ROW.finditer(PAGE)}


@cache
def parsed(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def functions_in(path: Path) -> set[str]:
    return {node.name for node in parsed(path) if isinstance(node, ast.FunctionDef)}


def cases_in(folder: Path) -> set[str]:
    """What a parametrized test may be run with: the texts and functions of its folder."""
    nodes = [node for path in folder.glob("*.py") for node in parsed(path)]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts.union(*(functions_in(path) for path in folder.glob("*.py")))


def missing(row: str) -> list[str]:
    """The tests that a row names and that do not exist: no such file, function, or case of a parametrized function."""
    gone = []
    for test in TEST.finditer(row):
        path = ROOT / test["path"]
        is_there = path.exists() and test["name"] in functions_in(path)
        if not is_there or (test["case"] and test["case"] not in cases_in(path.parent)):
            gone.append(test[0].strip())
    return gone


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_either_a_test_or_a_status(row: str) -> None:
    text = ROWS[row]
    assert len(TEST.findall(text)) == text.count("Test:"), "a test is written as `tests/…/test_x.py::test_name`"
    assert ("Test:" in text) != bool(STATUS.search(text))
    assert missing(text) == []


def test_every_list_item_with_an_id_is_a_row_and_no_id_stands_twice() -> None:
    ids = Counter(row["id"] for row in ROW.finditer(PAGE))
    assert [each for each, times in ids.items() if times > 1] == []
    assert len(re.findall(r"^- `", PAGE, re.MULTILINE)) == ids.total() > 0


@pytest.mark.parametrize(
    "test",
    [
        "tests/unit/test_nowhere.py::test_of_nothing",
        "tests/unit/test_requirements.py::test_of_nothing",
        "tests/template/test_rules.py::test_bundle_keeps_the_rule[that_nobody_wrote]",
    ],
)
def test_a_test_that_does_not_exist_is_noticed(test: str) -> None:
    assert missing(f"A rule.\n  Test: `{test}`") == [f"Test: `{test}`"]
