"""Alarms of CloudWatch as alerts."""

import re
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schoolbell.alerts import Alert, Severity

LONGEST_REASON: Final = 500
LONGEST_SUMMARY: Final = 1_024


class Alarm(BaseModel):
    """What CloudWatch sends when an alarm changes its state; of its fields, those that are used.

    The description of our alarms begins with the severity ("critical: ..."); another's counts as a warning.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(alias="AlarmName", min_length=1, max_length=255)
    description: str | None = Field(alias="AlarmDescription", default=None)
    state: Literal["OK", "ALARM", "INSUFFICIENT_DATA"] = Field(alias="NewStateValue")
    reason: str = Field(alias="NewStateReason", default="")
    changed_at: AwareDatetime = Field(alias="StateChangeTime")

    def as_alert(self, stack: str) -> Alert | None:
        """The alarm as an alert, whose key is the alarm's name without the stack's; none if it just has no data."""
        if self.state == "INSUFFICIENT_DATA":
            return None
        key = re.sub(r"[^!-~]", "-", self.name.removeprefix(f"{stack}-"))
        described = re.match(rf"({'|'.join(Severity)}): *(.+)", self.description or "", re.DOTALL)
        summary = described[2] if described else self.description or self.name
        return Alert(
            action="trigger" if self.state == "ALARM" else "resolve",
            key=key,
            severity=Severity(described[1]) if described else Severity.WARNING,
            summary=" ".join(summary.split())[:LONGEST_SUMMARY] or key,
            source=key.partition("/")[2] or "cloudwatch",
            details={"alarm": self.name, "reason": self.reason[:LONGEST_REASON]},
            at=self.changed_at,
        )
