"""What an operator can do, for the API and the page alike: through the job client, which writes the audit log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from schoolbell.admin.desk import Desk
from schoolbell.admin.models import Done, Preview, Reschedule, Trigger, Triggered
from schoolbell.admin.problems import NoSuchThing, Refusal

if TYPE_CHECKING:
    from schoolbell.operations import Change, JobClient


@dataclass(frozen=True, slots=True)
class Acts:
    """What one operator can do. Each act answers in words, also when there was nothing to do.

    All raise `NoSuchThing`, where there is no such job or dead letter, and `Refusal`, where it can't be done.
    """

    desk: Desk
    operator: str
    """The subject of the operator's token, for the audit log."""

    def run(self, job: str, wanted: Trigger) -> Triggered:
        """Runs a job now, once."""
        queues = self.desk.known(job).queues
        if wanted.queue is not None and wanted.queue not in queues:
            raise Refusal(f"{job} has no queue {wanted.queue}.")
        with _in_words():
            handle = self._client.trigger(wanted.queue or job, wanted.data or {}, dry_run=wanted.dry_run)
        kind = "dry run" if wanted.dry_run else "message" if queues else "run"
        return Triggered(message=f"A {kind} of {job} is on its way.", id=handle.id)

    def pause(self, job: str) -> Done:
        """Switches a schedule off."""
        return _done(lambda: self._client.pause(job))

    def resume(self, job: str) -> Done:
        """Switches a schedule on again."""
        return _done(lambda: self._client.resume(job))

    def preview(self, job: str, expression: str, timezone: str) -> Preview:
        """What another schedule would do.

        Raises:
            InvalidExpression: AWS would reject it.
        """
        schedule = self.desk.job(job).schedule
        if schedule is None:
            raise Refusal(f"{job} has no schedule.")
        return self.desk.preview(schedule, expression, timezone)

    def reschedule(self, job: str, wanted: Reschedule) -> Done:
        """Changes when a job runs.

        Raises:
            InvalidExpression: AWS would reject it.
        """
        return _done(lambda: self._client.reschedule(job, wanted.expression, wanted.timezone))

    def unschedule(self, job: str) -> Done:
        """Deletes a job's schedule."""
        return _done(lambda: self._client.unschedule(job))

    def redrive_all(self, job: str) -> Done:
        """Has all dead letters of a job tried again."""
        return _done(lambda: self._client.redrive(job))

    def drop_all(self, job: str) -> Done:
        """Gives all dead letters of a job up."""
        return _done(lambda: self._client.drop(job))

    def redrive(self, job: str, letter: UUID) -> Done:
        """Has a dead letter tried again."""
        self.desk.letter(job, letter)
        return _done(lambda: self._client.redrive(letter))

    def drop(self, job: str, letter: UUID) -> Done:
        """Gives a dead letter up."""
        self.desk.letter(job, letter)
        return _done(lambda: self._client.drop(letter))

    @property
    def _client(self) -> "JobClient":
        return self.desk.client.acting_as(self.operator)


def _done(act: "Callable[[], Change]") -> Done:
    with _in_words():
        change = act()
    return Done(message=_sentence(change.message), changed=change.count or int(change.is_changed))


@contextmanager
def _in_words() -> Iterator[None]:
    from schoolbell.operations.models import NotFound, Refused

    try:
        yield
    except NotFound as error:
        raise NoSuchThing(_sentence(str(error))) from None
    except Refused as error:
        raise Refusal(_sentence(str(error))) from None


def _sentence(text: str) -> str:
    """A line as a sentence; names of jobs keep their letters.

    >>> _sentence("there is no job x"), _sentence("tutoring.drive-sync is paused")
    ('There is no job x.', 'tutoring.drive-sync is paused.')
    """
    first = text.split(" ", 1)[0]
    return f"{text if '.' in first else text[:1].upper() + text[1:]}."
