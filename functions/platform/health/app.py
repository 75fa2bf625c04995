"""Answer on HTTP how the stack is: `/health` to anybody, the rest to whoever has the token.

The fields of `/health/events` are source 001's, with our queues for its streams: `lag` is what was not received yet,
`pending` what was received and is not done.
"""

import time
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import ServiceError, UnauthorizedError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware

import schoolbell
from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.observability import logger_of
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.jobs.runtime import Runtime, runtime

from . import reports
from .bearer import Token

# What asks AWS and draws metrics is imported where it is used: `/health`, which load balancers ask, needs none of it.
if TYPE_CHECKING:
    from schoolbell.monitoring.state import State
    from schoolbell.operations.catalogue import JobInfo

JOB: Final = "platform.health"
CATALOGUE_FOR: Final = timedelta(seconds=30)
"""How long the list of jobs is taken for true: it changes with a deployment, or when an operator moves a schedule."""

logger = logger_of(JOB)
app = APIGatewayHttpResolver()


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers one request of the HTTP API."""
    started_with = remaining_time(context)
    app.append_context(given=started_with)  # type: ignore[no-untyped-call]
    return app.resolve(event, context)  # type: ignore[arg-type]  # a context by its shape


# Who may ask

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
    listed = {name: reports.queue_as_json(queue) for name, queue in state.queues.items()}
    return as_json(
        {"status": reports.status_of(state, on), "queues": listed, "deadLetters": reports.dead_as_json(state)},
        HTTPStatus.OK,
    )


@app.get("/health/events", middlewares=[with_token])
def events() -> Response[Any]:
    """Source 001's report on its streams."""
    on = running_on()
    state = current_state(on)
    streams = {
        queue: reports.stream_as_json(job, queue, state)
        for job in state.jobs
        for queue in job.queues
        if queue in state.queues
    }
    answer = {
        "status": reports.status_of(state, on),
        "streams": streams,
        "dlq": reports.dead_as_json(state),
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
        from schoolbell.operations.catalogue import listed

        jobs = listed(on.database, on.settings, on.clock())
        _catalogues.clear()
        _catalogues[id(on.database)] = time.monotonic(), jobs
    return jobs


def running_on() -> Runtime:
    """The runtime, with a connection to the database that lives."""
    on = runtime(app.context["given"])
    on.database.check()
    return on
