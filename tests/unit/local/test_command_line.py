"""What the environment and the arguments give the command line."""

import pytest

from local.__main__ import parameters
from local.bundle import CommandError
from local.home import State
from local.invocation import invoke


def test_parameters_are_read_as_a_shell_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMETERS", "EmailProvider=sendgrid 'EmailFrom=a=b@example.com'")
    assert parameters() == {"EmailProvider": "sendgrid", "EmailFrom": "a=b@example.com"}


def test_none_are_given_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARAMETERS", raising=False)
    assert parameters() == {}


def test_a_parameter_without_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMETERS", "EmailProvider SmsProvider=twilio")
    with pytest.raises(CommandError, match="EmailProvider"):
        parameters()


@pytest.mark.parametrize("job", ["", "tutoring.data-retentoin"])
def test_a_job_that_is_none_is_answered_with_those_there_are(job: str) -> None:
    with pytest.raises(CommandError, match=r"JOB is one of: platform\.admin, .*tutoring\.data-retention"):
        invoke(State(), job, None)
