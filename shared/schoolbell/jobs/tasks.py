"""Jobs that a Step Functions state rings."""

import json
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from pydantic import ValidationError

from schoolbell.jobs import runs
from schoolbell.jobs.context import JobContext
from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.observability import count_failures, logger_of
from schoolbell.jobs.outcomes import InvalidEvent, JobFailed, Payload, Result, in_one_line
from schoolbell.jobs.runtime import Runtime, runtime


def task_job[P: Payload, R: Result](
    name: str, payload: type[P]
) -> Callable[[Callable[[JobContext, P], R]], "TaskJob[P, R]"]:
    """Makes a function of a `JobContext` and a payload the Lambda handler of a state; the result is the state's."""
    return lambda function: TaskJob(name, function, payload)


class TaskJob[P: Payload, R: Result]:
    """The Lambda handler of a state of a state machine. What it raises, the machine retries or catches."""

    def __init__(self, name: str, function: Callable[[JobContext, P], R], payload: type[P]) -> None:
        update_wrapper(self, function)
        self.name = name
        self._function = function
        self._payload = payload
        self._logger = logger_of(name)

    def __call__(self, event: Any, context: LambdaContext) -> dict[str, Any]:
        """Does the state's work and returns its result.

        Raises:
            InvalidEvent: the machine gave what the payload model refuses.
            JobFailed: the job raised.
        """
        on = runtime(remaining_time(context))
        job = JobContext.of(self.name, self._logger, on, context)
        self._logger.append_keys(run_id=str(job.run_id))
        try:
            message = self._payload.model_validate_json(json.dumps(event))  # JSON mode: ids and times come as text
        except ValidationError as error:
            raise InvalidEvent(f"{self.name}: {in_one_line(error)}") from None
        on.database.check()
        try:
            result = self._function(job, message)
            job.send_outbox()
        except Exception as error:
            self._report(on, job, None, error)
            raise JobFailed(in_one_line(error)) from None
        self._report(on, job, result, None)
        return runs.as_json(result) or {}

    def _report(self, on: Runtime, job: JobContext, result: R | None, error: Exception | None) -> None:
        if error:
            self._logger.error("task failed", error=in_one_line(error), frames=runs.frames(error))
        count_failures(on.settings, self.name, int(error is not None))
        try:
            with on.database.transaction() as connection:
                runs.record(
                    connection,
                    job.run_id,
                    self.name,
                    trigger="task",
                    request_id=job.request_id,
                    started_at=job.now,
                    finished_at=on.clock(),
                    total=1,
                    failed=int(error is not None),
                    result=result,
                    error=error,
                )
        except Exception as not_recorded:  # history only; the task's own outcome stands
            self._logger.error("run not recorded", error=in_one_line(not_recorded))
