"""Which names a stack may have, as the parameter that CloudFormation checks says it."""

import re

import pytest

from tests.template.bundle import stack_name


def is_taken(name: str) -> bool:
    declared = stack_name()
    return bool(re.fullmatch(declared["AllowedPattern"], name)) and len(name) <= declared["MaxLength"]


@pytest.mark.parametrize("name", ["schoolbell", "schoolbell-dev", "s", "s2", "x" * 32])
def test_takes(name: str) -> None:
    assert is_taken(name)


@pytest.mark.parametrize(
    "name",
    ["x" * 33, "School", "school_bell", "-school", "2-schools", "", "our-aws", "amazon", "cognito-school", "laws"],
)
def test_refuses(name: str) -> None:
    assert not is_taken(name)
