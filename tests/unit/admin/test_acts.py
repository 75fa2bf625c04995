"""What operators do, as far as it needs no stack."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

from schoolbell.admin.acts import Acts
from schoolbell.admin.models import Trigger


def test_aws_is_asked_for_nothing_more_once_a_job_is_triggered() -> None:
    """It could fall silent, and whoever reads that it did not answer would run the job a second time."""
    done: list[str] = []

    def known(job: str) -> Any:
        done.append(f"ask what {job} is")
        return SimpleNamespace(queues=())

    def trigger(job: str, _data: object, **_: object) -> Any:
        done.append(f"trigger {job}")
        return SimpleNamespace(id=UUID(int=1))

    client = SimpleNamespace(acting_as=lambda _operator: SimpleNamespace(trigger=trigger))
    desk: Any = SimpleNamespace(known=known, client=client)
    assert Acts(desk, "someone").run("tutoring.bell", Trigger()).message == "A run of tutoring.bell is on its way."
    assert done == ["ask what tutoring.bell is", "trigger tutoring.bell"]
