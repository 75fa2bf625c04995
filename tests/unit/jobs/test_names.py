"""What `schoolbell.jobs` is told to have, it has."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from schoolbell import jobs


def test_each_name_that_a_type_checker_sees_is_there_and_is_what_it_sees() -> None:
    module = ast.parse(Path(str(jobs.__file__)).read_text())
    seen = [
        (name.name, node.module)
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{jobs.__name__}.")
        for name in node.names
    ]
    assert len(seen) > 10
    for name, where in seen:
        assert getattr(jobs, name) is getattr(import_module(where), name)


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match=r"module 'schoolbell\.jobs' has no attribute 'Lesson'"):
        jobs.Lesson  # type: ignore[attr-defined]  # noqa: B018
