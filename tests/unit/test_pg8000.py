"""The connection replaces part of pg8000's protocol, by names that pg8000 does not promise to keep."""

import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pg8000.core
import pg8000.dbapi
import pytest

ROOT = Path(__file__).parents[2]

WRITTEN_FOR = "1.31.6"
"""The version whose core.py and dbapi.py `schoolbell.database` was read against; docs/decisions/0003-pg8000.md says
what to do before this changes."""

# What the subclass calls or replaces, with the parameters it relies on.
METHODS = {
    "execute_unnamed": ("self", "statement", "vals", "oids", "stream"),
    "execute_simple": ("self", "statement"),
    "handle_messages": ("self", "context"),
    "send_PARSE": ("self", "statement_name_bin", "statement", "oids"),
    "send_DESCRIBE_STATEMENT": ("self", "statement_name_bin"),
    "send_BIND": ("self", "statement_name_bin", "params"),
    "send_EXECUTE": ("self",),
    "_send_message": ("self", "code", "data"),
    "commit": ("self",),
    "rollback": ("self",),
    "close": ("self",),
}
ATTRIBUTES = ("_sock", "_usock", "_in_transaction", "py_types", "message_types")


@pytest.mark.parametrize("lock", ["layers/runtime/requirements.txt", "requirements/dev.txt"])
def test_the_pinned_version_is_the_one_that_the_connection_was_written_for(lock: str) -> None:
    assert re.findall(r"^pg8000==(\S+)", (ROOT / lock).read_text(), re.MULTILINE) == [WRITTEN_FOR]


def test_tests_run_on_that_version() -> None:
    assert version("pg8000") == WRITTEN_FOR


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_called_or_replaced_takes_what_it_took(name: str) -> None:
    method = getattr(pg8000.dbapi.Connection, name)
    assert tuple(inspect.signature(method).parameters) == METHODS[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_is_used_is_still_there(name: str) -> None:
    is_set = f"self.{name} = " in inspect.getsource(pg8000.core.CoreConnection)
    assert is_set or hasattr(pg8000.dbapi.Connection, name)
