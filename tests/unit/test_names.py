"""What `schoolbell.jobs` and `schoolbell.operations` are told to have, they have."""

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from schoolbell import jobs, operations

PACKAGES = pytest.mark.parametrize("package", [jobs, operations], ids=lambda package: package.__name__)


@PACKAGES
def test_each_name_that_a_type_checker_sees_is_there_and_is_what_it_sees(package: ModuleType) -> None:
    module = ast.parse(Path(str(package.__file__)).read_text())
    seen = [
        (name.name, node.module)
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package.__name__}.")
        for name in node.names
    ]
    assert len(seen) > 10
    for name, where in seen:
        assert getattr(package, name) is getattr(import_module(where), name)


@PACKAGES
def test_another_name_is_not(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'Lesson'"):
        package.Lesson  # noqa: B018
