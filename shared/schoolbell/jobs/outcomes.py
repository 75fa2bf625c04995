"""What a job says about its work: results, and the exceptions that mean something other than "try again"."""

from datetime import timedelta
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

LONGEST_SNOOZE = timedelta(minutes=15)
"""SQS delays a message by 900 seconds at most; a longer snooze wakes up, looks and snoozes again."""


LONGEST_LINE = 500
"""Characters of an error that are kept. The names of unknown fields are the sender's, and may fill the message."""


class JobError(Exception):
    """The root of what the job runtime raises."""


class Snooze(JobError):
    """Not now: the message comes back after a delay, and this does not count as an attempt."""

    def __init__(self, delay: timedelta) -> None:
        self.delay = max(timedelta(0), min(delay, LONGEST_SNOOZE))
        super().__init__(f"not now, again in {self.delay.total_seconds():.0f} s")


class Discard(JobError):
    """This can never pass: the message is recorded and put on the dead-letter queue at once, with the reason."""


class InvalidEvent(JobError):
    """A function was invoked with an event that its trigger would not send."""


class JobFailed(JobError):
    """A run failed that no message began. Lambda logs this text, so it says what went wrong without personal data."""


class Payload(BaseModel):
    """The body of a message or the data of a manual run. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(BaseModel):
    """What a run did, in counts and ids; stored with the run, so it holds nothing personal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def plus(self, other: Self) -> Self:
        """The result of both pieces of work: counts are added, anything else is taken from the later one."""
        added: dict[str, Any] = {}
        for name, earlier in self:
            later = getattr(other, name)
            is_count = isinstance(earlier, int | float) and not isinstance(earlier, bool)
            added[name] = earlier + later if is_count else later
        return type(self)(**added)


class Deleted(Result):
    """How many rows went, or would go in a dry run."""

    rows: int


def in_one_line(error: Exception) -> str:
    """An error as one line that names what is wrong, without repeating the input (it may be personal).

    Neither PostgreSQL nor SQS takes every character, and a name or a letter of the input may be among what is said.

    Examples: `session_id: Field required`, `seats: Input should be greater than 0; colour: Extra inputs are not
    permitted`, `IntegrityError: duplicate key value violates unique constraint "uq_x"`.
    """
    said = "".join(character if character.isprintable() else " " for character in _said_by(error))
    return " ".join(said.split())[:LONGEST_LINE]


def _said_by(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, details['loc'])) or 'message'}: {details['msg']}"
            for details in error.errors(include_url=False, include_context=False, include_input=False)
        )
    if isinstance(error, JobError):
        return str(error)
    return f"{type(error).__name__}: {_message_without_values(error)}"


def _message_without_values(error: Exception) -> str:
    # SQLAlchemy's text repeats the statement and its parameters, and PostgreSQL's detail repeats the row.
    details = getattr(getattr(error, "orig", None), "args", None)
    if details and isinstance(details[0], dict):
        return str(details[0].get("M", "database error"))
    return str(error)
