"""Answer on HTTP how the stack is: `/health` to anybody, the rest to whoever has the token.

The fields of `/health/events` are source 001's, with our queues for its streams: `lag` is what was not received yet,
`pending` what was received and is not done.
"""

import hmac
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import ServiceError, UnauthorizedError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware

import schoolbell
from schoolbell import aws
from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.observability import count_run, logger_of
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.jobs.runtime import Runtime, runtime
from schoolbell.settings import settings

# What asks AWS and draws metrics is imported where it is used: `/health`, which load balancers ask, needs none of it.
if TYPE_CHECKING:
    from schoolbell.monitoring.state import State
    from schoolbell.operations.catalogue import JobInfo
    from schoolbell.operations.queues import QueueDepth

JOB: Final = "platform.health"
CATALOGUE_FOR: Final = timedelta(seconds=30)
"""How long the list of jobs is taken for true: it changes with a deployment, or when an operator moves a schedule."""
TOKEN_FOR: Final = timedelta(minutes=1)
"""How often at most the token is read again, for one that was changed."""

logger = logger_of(JOB)
app = APIGatewayHttpResolver()


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers one request of the HTTP API."""
    started_with = remaining_time(context)
    app.append_context(given=started_with)  # type: ignore[no-untyped-call]
    answer = app.resolve(event, context)  # type: ignore[arg-type]  # a context by its shape
    is_failure = answer["statusCode"] >= HTTPStatus.INTERNAL_SERVER_ERROR
    count_run(JOB, failures=int(is_failure), items=1, duration=started_with - remaining_time(context))
    return answer


# Who may ask


class Token:
    """The token of `/metrics` and of the details, from Secrets Manager."""

    def __init__(self) -> None:
        self._value = b""
        self._read_at = -TOKEN_FOR.total_seconds()

    def is_given(self, authorization: str) -> bool:
        """Whether a header carries it; takes as long whatever is wrong with it."""
        scheme, _, given = authorization.partition(" ")
        is_bearer = scheme.lower() == "bearer"
        if is_bearer and self._is(given):
            return True
        return is_bearer and self._is_read_again() and self._is(given)

    def _is(self, given: str) -> bool:
        return bool(self._value) and hmac.compare_digest(given.strip().encode(), self._value)

    def _is_read_again(self) -> bool:
        if time.monotonic() - self._read_at < TOKEN_FOR.total_seconds():
            return False
        self._read_at = time.monotonic()
        answer = aws.client("secretsmanager").get_secret_value(SecretId=settings().monitoring_secret_id)
        self._value = str(answer["SecretString"]).encode()
        return True


token = Token()


def with_token(app: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[Any]:
    """Lets a request through that carries the token; tells others nothing."""
    if not token.is_given(app.current_event.headers.get("authorization") or ""):
        raise UnauthorizedError("Unauthorized")
    return next_middleware(app)


@app.exception_handler(UnauthorizedError)  # type: ignore[untyped-decorator]
def refuse(_error: UnauthorizedError) -> Response[Any]:
    return as_json({"message": "Unauthorized"}, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})


@app.exception_handler(Exception)  # type: ignore[untyped-decorator]
def fail(error: Exception) -> Response[Any]:
    if isinstance(error, ServiceError):
        return as_json({"message": error.msg}, HTTPStatus(error.status_code))
    logger.error("no state to tell", error=in_one_line(error))
    return as_json({"status": "unhealthy"}, HTTPStatus.SERVICE_UNAVAILABLE)


def as_json(body: dict[str, Any], status: HTTPStatus, headers: dict[str, Any] | None = None) -> Response[Any]:
    """An answer that nobody is to keep."""
    shown: dict[str, Any] = {"Cache-Control": "no-store", **(headers or {})}
    return Response(status, content_types.APPLICATION_JSON, app._serializer(body), shown)


# What is told


@app.get("/health")
def liveness() -> Response[Any]:
    """That the function runs, and nothing else: anybody may ask."""
    return as_json({"status": "ok", "version": schoolbell.__version__}, HTTPStatus.OK)


@app.get("/health/queues", middlewares=[with_token])
def queues() -> Response[Any]:
    """Each queue with what waits, what is being done, and what is dead."""
    on = running_on()
    state = current_state(on)
    listed = {name: queue_as_json(queue) for name, queue in state.queues.items()}
    return as_json(
        {"status": status_of(state, on), "queues": listed, "deadLetters": dead_as_json(state)}, HTTPStatus.OK
    )


@app.get("/health/events", middlewares=[with_token])
def events() -> Response[Any]:
    """Source 001's report on its streams."""
    on = running_on()
    state = current_state(on)
    streams = {
        queue: stream_as_json(job, queue, state) for job in state.jobs for queue in job.queues if queue in state.queues
    }
    answer = {
        "status": status_of(state, on),
        "streams": streams,
        "dlq": dead_as_json(state),
        "handlersRegistered": sum(bool(job.queues) for job in state.jobs),
    }
    return as_json(answer, HTTPStatus.OK)


@app.get("/metrics", middlewares=[with_token])
def metrics() -> Response[Any]:
    """The metrics in Prometheus's text format."""
    from schoolbell.monitoring.metrics import CONTENT_TYPE, exposition

    on = running_on()
    page = exposition(current_state(on), on.clock()).decode()
    return Response(HTTPStatus.OK, CONTENT_TYPE, page, {"Cache-Control": "no-store"})


def queue_as_json(queue: "QueueDepth") -> dict[str, int]:
    return {
        "waiting": queue.unreceived,
        "active": queue.in_flight,
        "pending": queue.pending,
        "deadLetters": queue.dead,
    }


def stream_as_json(job: "JobInfo", name: str, state: "State") -> dict[str, Any]:
    queue = state.queues[name]
    group = {"name": job.name, "pending": queue.in_flight, "lag": queue.unreceived}
    last = state.last_events.get(job.name)
    return {"pending": queue.pending, "consumerGroups": [group], "lastEventTimestamp": as_text(last)}


def dead_as_json(state: "State") -> dict[str, Any]:
    return {"messageCount": sum(state.dead.values()), "oldestMessage": as_text(state.oldest_dead)}


def as_text(moment: datetime | None) -> str | None:
    """A time as source 001 writes it: `2025-11-16T10:30:00Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if moment else None


def status_of(state: "State", on: Runtime) -> str:
    """`degraded` when something is dead, or a queue is behind by the thresholds of its alarms."""
    from schoolbell.operations.queues import Thresholds, oldest_messages

    thresholds = Thresholds.of(on.settings)
    ages = oldest_messages(state.queues.values(), on.settings, on.clock())
    is_behind = any(thresholds.are_exceeded(depth, ages.get(name)) for name, depth in state.queues.items())
    return "degraded" if is_behind or any(state.dead.values()) else "healthy"


# Where it comes from

_catalogues: dict[int, tuple[float, "list[JobInfo]"]] = {}


def current_state(on: Runtime) -> "State":
    """The state at this moment, of the jobs as they were half a minute ago at most."""
    from schoolbell.monitoring.state import state_of

    return state_of(catalogue(on), on.database, on.settings)


def catalogue(on: Runtime) -> "list[JobInfo]":
    """The jobs, asked of AWS when what is known is too old."""
    asked_at, jobs = _catalogues.get(id(on.database), (0.0, []))
    if not jobs or time.monotonic() - asked_at > CATALOGUE_FOR.total_seconds():
        from schoolbell.operations import JobClient

        jobs = JobClient(on.database, on.settings, clock=on.clock).jobs()
        _catalogues.clear()
        _catalogues[id(on.database)] = time.monotonic(), jobs
    return jobs


def running_on() -> Runtime:
    """The runtime, with a connection to the database that lives."""
    on = runtime(app.context["given"])
    on.database.check()
    return on
