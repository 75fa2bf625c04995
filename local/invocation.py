"""Invoking a job of the running stack with an event, as `sam local invoke -e` does without the rest of the stack."""

import json
from pathlib import Path

from local.bundle import CommandError
from local.emulator.process import client
from local.home import CHECKOUT, State


def invoke(state: State, job: str, event_file: Path | None) -> bool:
    """Invoke a job and print what it answered as JSON.

    Args:
        state: of the running stack.
        job: e.g. `tutoring.lifecycle-detection`.
        event_file: the event; the job's own of `events/` if not given.

    Returns:
        whether the job succeeded.

    Raises:
        CommandError: there is no such job, or no such file.
    """
    events = CHECKOUT / "events"
    own = events / f"{job.replace('.', '/').replace('-', '_')}.json"
    if not own.exists():
        known = sorted(f"{path.parent.name}.{path.stem.replace('_', '-')}" for path in events.glob("*/*.json"))
        raise CommandError(f"No job {job or 'given'}. JOB is one of: {', '.join(known)}")
    path = event_file or own
    if not path.exists():
        raise CommandError(f"No such file: {path}")
    answer = client("lambda", state.ports["emulator"]).invoke(
        FunctionName=f"{state.stack}-{job.replace('.', '-')}", Payload=of_stack(path.read_text(), state.stack).encode()
    )
    print(json.dumps(json.loads(answer["Payload"].read() or b"null"), indent=2))
    return "FunctionError" not in answer


def of_stack(event: str, stack: str) -> str:
    """An event of `events/`, which name the resources of a stack called schoolbell, as it comes from another one's."""
    return event.replace(":schoolbell-", f":{stack}-")
