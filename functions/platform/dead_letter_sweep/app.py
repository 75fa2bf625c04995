"""Look at what lies on the dead-letter queues, every 5 minutes, and leave it there.

Records what no worker could record, and the records follow their messages: one whose message went with a redrive from
the SQS console, or was kept to its last day, is resolved, and one whose message is there after all is open again. One
alert a job stands while there are dead letters of it. How certain that can be is told in docs/states.md.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from schoolbell.jobs import JobContext, Result, scheduled_job
from schoolbell.jobs.observability import count
from schoolbell.operations import dead_letter_queues

QUEUES_AT_A_TIME: Final = 10


class Swept(Result):
    """Counts of queues and of the messages on them, and how many records changed."""

    queues: int
    messages: int
    recorded: int = 0
    reopened: int = 0
    redriven: int = 0
    expired: int = 0
    unreadable: int = 0
    """Queues that could not be looked at."""


@scheduled_job("platform.dead-letter-sweep", singleton=True)
def handler(job: JobContext) -> Swept:
    names = dead_letter_queues.addresses(job.settings)
    with ThreadPoolExecutor(QUEUES_AT_A_TIME) as pool:
        looks = list(pool.map(partial(dead_letter_queues.begin, job), names))
    seen = [dead_letter_queues.record_what_is_there(job, look) for look in looks]
    gone = [dead_letter_queues.resolve_what_has_gone(job, look) for look in looks]
    dead_letter_queues.raise_alerts(job, looks)
    messages = sum(look.number for look in looks)
    count(job.name, "DeadLetters", messages)
    return Swept(
        queues=len(looks),
        messages=messages,
        recorded=sum(found.recorded for found in seen),
        reopened=sum(found.reopened for found in seen),
        redriven=sum(redriven for redriven, _ in gone),
        expired=sum(expired for _, expired in gone),
        unreadable=sum(not look.is_readable for look in looks),
    )
