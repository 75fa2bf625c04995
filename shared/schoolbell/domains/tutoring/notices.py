"""The words of teachers' notifications, as the application shows them and the email repeats them: `notices.json`.

One statement writes the notifications of thousands of teachers, so PostgreSQL fills in the fields: a notice with fields
becomes a pattern for its function `format`. https://www.postgresql.org/docs/current/functions-string.html
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def notices() -> Mapping[str, Mapping[str, str]]:
    """What `notices.json` says: a title, and perhaps a body, by the kind of the notification."""
    said: dict[str, dict[str, str]] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    return said


def title(kind: str) -> str:
    """The title of a notice that has no fields.

    Raises:
        KeyError: there is none of this kind, or it has a field.
    """
    return notices()[kind]["title"].format_map({})


def patterns(prefix: str, *fields: str) -> dict[str, dict[str, str]]:
    """The notices of some kinds as patterns for PostgreSQL's `format`, by what follows the prefix of their kind.

    >>> patterns("lifecycle_", "student", "number", "day")["churn"]["title"]
    'No activity for %2$s days'

    Args:
        prefix: what their kinds begin with.
        fields: the names of the arguments that `format` is given, in their order.

    Raises:
        KeyError: a notice has another field.
    """
    numbered = {field: f"%{number}$s" for number, field in enumerate(fields, start=1)}
    return {
        kind.removeprefix(prefix): {
            part: words.replace("%", "%%").format_map(numbered) for part, words in notice.items()
        }
        for kind, notice in notices().items()
        if kind.startswith(prefix)
    }
