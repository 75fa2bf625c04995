"""A forgotten permission fails a rule: with any statement of any role removed, one of the rules says so."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.template import permissions
from tests.template.bundle import Bundle, bundle


@pytest.fixture(scope="module")
def known() -> permissions.Expected:
    """What the roles need, whatever they are allowed."""
    return permissions.expected(bundle())


def documents(of: Bundle) -> Iterator[tuple[str, dict[str, Any]]]:
    """The policies of all roles, with where they stand."""
    for domain, template in of.templates.items():
        for name, role in template.of_type("AWS::IAM::Role"):
            yield f"{domain}.{name}.trust", role["AssumeRolePolicyDocument"]
            for policy in role.get("Policies", []):
                yield f"{domain}.{name}.{policy['PolicyName']}", policy["PolicyDocument"]
        for name, policy in template.of_type("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            yield f"{domain}.{name}", policy["PolicyDocument"]


STATEMENTS = [
    (where, number) for where, document in documents(bundle()) for number in range(len(document["Statement"]))
]


@pytest.mark.parametrize(("where", "number"), STATEMENTS)
def test_without_any_single_statement_a_rule_is_broken(where: str, number: int, known: permissions.Expected) -> None:
    broken = bundle().copy()
    del dict(documents(broken))[where]["Statement"][number]
    assert [
        *permissions.too_little(broken, known),
        *permissions.not_trusted(broken, known),
        *permissions.not_denied(broken),
    ]


@pytest.mark.parametrize(
    ("exceptions", "exception"),
    [
        *((permissions.NEVER_ASKED, each) for each in permissions.NEVER_ASKED),
        *((permissions.NEVER_SENT, each) for each in permissions.NEVER_SENT),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_each_exception_is_still_one(
    exceptions: dict[tuple[str, str], str], exception: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(exceptions, exception)
    assert list(permissions.too_little(bundle(), permissions.expected(bundle())))
