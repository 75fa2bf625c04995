"""The environment of a function as one validated model, read once."""

import os
from datetime import timedelta
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schoolbell.domains import DOMAINS


class Settings(BaseModel):
    """What the template gives a function, by environment variable of the same name in upper case."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schoolbell_stack: str = "schoolbell"
    aws_region: str = "us-east-1"
    aws_account_id: str = "000000000000"
    aws_answer_seconds: float = Field(default=10, gt=0)
    """How long an AWS service may take to answer a call."""
    aws_attempts: int = Field(default=4, ge=1)
    """How often a call is made, the first time included."""
    database_secret_id: str = ""
    max_receive_count: int = Field(default=5, ge=1)
    resilience_table: str = ""
    schedule_group: str = ""
    scheduler_role_arn: str = ""
    archive_bucket: str = ""
    admin_url: str = ""
    admin_issuer: str = ""
    admin_audience: str = ""
    admin_role_claim: str = "cognito:groups"
    google_calendar_url: str = "https://www.googleapis.com/calendar/v3"
    google_drive_url: str = "https://www.googleapis.com/drive/v3"
    google_token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a token
    # Calls a minute, for a teacher and for all: half of what Google allows a new project or less, since the application
    # calls too. https://developers.google.com/workspace/calendar/api/guides/quota, .../drive/api/guides/limits
    google_calendar_calls_per_teacher: int = Field(default=300, ge=3)
    google_calendar_calls_overall: int = Field(default=5_000, ge=3)
    google_drive_calls_per_teacher: int = Field(default=300, ge=1)
    google_drive_calls_overall: int = Field(default=3_000, ge=1)
    email_provider: Literal["ses", "sendgrid"] = "ses"
    sms_provider: Literal["sns", "twilio"] = "sns"
    push_provider: Literal["fcm"] = "fcm"
    # What Amazon grants at first, and a tenth of what Firebase does; docs/notifications.md says how to raise them.
    emails_a_second: int = Field(default=14, ge=1)
    sms_a_second: int = Field(default=20, ge=1)
    pushes_a_second: int = Field(default=1_000, ge=1)
    provider_timeout: timedelta = timedelta(seconds=5)
    """How long a provider may take to answer; source 001."""
    email_from: str = "no-reply@example.com"
    ses_configuration_set: str = ""
    sendgrid_url: str = "https://api.sendgrid.com"
    twilio_url: str = "https://api.twilio.com"
    fcm_url: str = "https://fcm.googleapis.com"
    pagerduty_url: str = "https://events.pagerduty.com"
    pagerduty_severity: Literal["critical", "warning", "info"] = "critical"
    slack_severity: Literal["critical", "warning", "info"] = "warning"
    """What is less severe is not told there."""
    slack_runs: frozenset[str] = frozenset()
    """The scheduled jobs each of whose runs is told there; in the environment, their names with commas between."""
    monitoring_secret_id: str = ""
    """The secret with the token that `/metrics` asks for."""
    queue_backlog_messages: int = Field(default=1_000, ge=0)
    """A queue with more messages than this is behind; source 001."""
    oldest_message_seconds: int = Field(default=300, ge=0)
    """So is one whose oldest message has waited longer."""
    time_limit_percent: float = Field(default=90, gt=0)
    """A run that took more of its function's timeout raises an alert."""
    usual_duration_factor: float = Field(default=2, gt=1)
    """A scheduled run that took longer than this many times its job's average raises an alert."""

    @field_validator("slack_runs", mode="before")
    @classmethod
    def _from_commas(cls, value: Any) -> Any:
        return value.replace(",", " ").split() if isinstance(value, str) else value

    def resource_name(self, job: str) -> str:
        """The name that a job's function, queue and schedule share.

        >>> Settings(schoolbell_stack="prod").resource_name("tutoring.calendar-sync")
        'prod-tutoring-calendar-sync'
        """
        return f"{self.schoolbell_stack}-{job.replace('.', '-')}"

    @property
    def metrics_namespace(self) -> str:
        """Where this stack's metrics are in CloudWatch, apart from those of another stack in the account."""
        return f"Schoolbell/{self.schoolbell_stack}"

    def provider_secret(self, service: str) -> str:
        """The name of the secret with an outside service's key, e.g. `sendgrid`.

        >>> Settings(schoolbell_stack="prod").provider_secret("sendgrid")
        'prod/providers/sendgrid'
        """
        return f"{self.schoolbell_stack}/providers/{service}"

    def queue_address(self, name: str) -> str:
        """The address of a queue of this account; SQS addresses are made of region, account and name."""
        return f"https://sqs.{self.aws_region}.amazonaws.com/{self.aws_account_id}/{name}"

    def job_of(self, resource_name: str) -> str | None:
        """The job whose function, queue or schedule has this name; `None` if the name is no job's of this stack.

        >>> Settings(schoolbell_stack="prod").job_of("prod-tutoring-calendar-sync")
        'tutoring.calendar-sync'
        >>> Settings(schoolbell_stack="prod").job_of("prod-eu-tutoring-calendar-sync")
        """
        start = f"{self.schoolbell_stack}-"
        domain, _, name = resource_name.removeprefix(start).partition("-")
        return f"{domain}.{name}" if resource_name.startswith(start) and domain in DOMAINS and name else None

    def queue_url(self, job: str) -> str:
        """The address of a job's queue."""
        return self.queue_address(self.resource_name(job))

    def dead_letter_queue_url(self, job: str) -> str:
        """The address of the queue that keeps a job's dead messages."""
        return f"{self.queue_url(job)}-dlq"

    def queue_arn(self, job: str) -> str:
        """The ARN of a job's queue."""
        return f"arn:aws:sqs:{self.aws_region}:{self.aws_account_id}:{self.resource_name(job)}"

    def dead_letter_queue_arn(self, job: str) -> str:
        """The ARN of the queue that keeps a job's dead messages."""
        return f"{self.queue_arn(job)}-dlq"

    def function_arn(self, job: str) -> str:
        """The ARN of a job's function."""
        return f"arn:aws:lambda:{self.aws_region}:{self.aws_account_id}:function:{self.resource_name(job)}"

    def topic_arn(self, topic: str) -> str:
        """The ARN of one of the stack's SNS topics, e.g. `alerts`."""
        return f"arn:aws:sns:{self.aws_region}:{self.aws_account_id}:{self.schoolbell_stack}-{topic}"

    def state_machine_arn(self, machine: str) -> str:
        """The ARN of one of the stack's state machines, e.g. `tutoring.waitlist-cascade`."""
        return f"arn:aws:states:{self.aws_region}:{self.aws_account_id}:stateMachine:{self.resource_name(machine)}"


@cache
def settings() -> Settings:
    """The settings of this execution environment, read and validated on the first call.

    Raises:
        pydantic.ValidationError: a variable has a value that cannot be used.
    """
    return Settings.model_validate({name.lower(): value for name, value in os.environ.items()})
