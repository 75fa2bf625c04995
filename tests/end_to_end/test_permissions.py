"""IAM was enforced all the time: what a job may do was enough, also where it would have got over a refusal."""

import pytest

from tests.end_to_end.stack import Stack

REFUSALS = (
    "AccessDenied",
    "is not authorized to perform",
    "its role may not",  # what a schedule's target was refused
    "may not invoke",  # what the state machine was refused
    "visibility not changed",
    "not sent again",
)


@pytest.fixture
def whole_log(stack: Stack) -> str:
    """What the functions and the emulator have logged so far. A test that uses it comes last."""
    return (stack.home.logs / "emulator.log").read_text(errors="replace")


def test_no_role_was_refused_anything(stack: Stack, whole_log: str) -> None:
    assert stack.home.state().enforces_iam
    assert [line for line in whole_log.splitlines() if any(refusal in line for refusal in REFUSALS)] == []
