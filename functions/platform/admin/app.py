"""The admin API under `/admin/api` and the page `/admin/scheduled-jobs`, for the role `system_admin` only.

Every request is verified here, whatever the gateway did, before anything else is looked at; see `schoolbell.admin`.
"""

from http import HTTPStatus
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import ResponseBuilder
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from schoolbell import aws
from schoolbell.admin import api, entrance, pages
from schoolbell.admin.acts import Acts
from schoolbell.admin.desk import desk_of
from schoolbell.admin.entrance import NotOurForm, admit, is_open, site_of, visit_of
from schoolbell.admin.identity import Denied, Forbidden, IssuerAway
from schoolbell.admin.problems import NoSuchThing, Refusal
from schoolbell.database import is_unavailable
from schoolbell.jobs.invocation import LambdaContext, remaining_time
from schoolbell.jobs.observability import logger_of
from schoolbell.jobs.outcomes import in_one_line
from schoolbell.jobs.runtime import runtime
from schoolbell.operations.expressions import InvalidExpression

JOB = "platform.admin"

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # with none at all, browsers hide from us where our own forms were sent from
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}

logger = logger_of(JOB)
app = APIGatewayHttpResolver(enable_validation=True)
app.include_router(entrance.router)
app.include_router(pages.router)
app.include_router(api.router)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers a request that API Gateway passes on, in its payload format 2.0."""
    on = runtime(remaining_time(context))
    request = APIGatewayProxyEventV2(event)
    desk = desk_of(on, logger, on.clock())
    seen = visit_of(request, site_of(on.settings, request))
    app.current_event = request
    app.append_context(desk=desk, visit=seen)  # type: ignore[no-untyped-call]
    refusal = None
    try:
        if not is_open(request.raw_path):
            app.append_context(acts=Acts(desk, admit(request, seen, desk.issuer).subject))  # type: ignore[no-untyped-call]
            on.database.check()
    except (Denied, NotOurForm, IssuerAway) as reason:
        refusal = turn_away(request, reason)
    answer = built(refusal, request) if refusal else app.resolve(event, context)  # type: ignore[arg-type]  # our context is the part that is used
    app.clear_context()  # type: ignore[no-untyped-call]
    answer["headers"] = {"Cache-Control": "no-store"} | answer["headers"] | SECURITY_HEADERS
    return answer


@app.get(entrance.DOCUMENT, include_in_schema=False, enable_validation=False)
def describe() -> Response[str]:
    """The OpenAPI document of the admin API."""
    from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer  # fifty models, for this page only

    document = app.get_openapi_json_schema(
        title="Schoolbell's admin API",
        version="1",
        description=(
            "See every job, run it, pause it, change when it runs, find out why one failed and put it right. "
            "Calls carry a bearer token of the configured OIDC issuer with the role system_admin."
        ),
        security_schemes={"token": HTTPBearer(bearerFormat="JWT")},
        security=[{"token": []}],
    )
    return Response(HTTPStatus.OK, "application/json", document, compress=True)


def turn_away(request: APIGatewayProxyEventV2, reason: Exception) -> Response[Any]:
    """What somebody is told who is not let in: nothing but that."""
    if not request.raw_path.startswith(entrance.API):
        match reason:
            case Denied():
                return entrance.refuse(reason, wanted=request.raw_path)
            case NotOurForm():
                return entrance.not_our_form()
        return entrance.issuer_away()
    match reason:
        case Forbidden():
            status = HTTPStatus.FORBIDDEN
        case Denied():
            status = HTTPStatus.UNAUTHORIZED
        case _:
            status = HTTPStatus.SERVICE_UNAVAILABLE
    logger.warning("refused", reason=str(reason))
    return api.answer(status, status.phrase)


def built(response: Response[Any], request: APIGatewayProxyEventV2) -> dict[str, Any]:
    """A response as API Gateway takes it."""
    answer: dict[str, Any] = ResponseBuilder[APIGatewayProxyEventV2](response).build(request)
    return answer


# ---- what goes wrong, told to programs as JSON and to people as a page


@app.exception_handler(NoSuchThing)  # type: ignore[untyped-decorator]
def no_such_thing(problem: NoSuchThing) -> Response[Any]:
    return told(HTTPStatus.NOT_FOUND, "Not found", str(problem))


@app.not_found
def no_such_page(_problem: NotFoundError) -> Response[Any]:
    return told(HTTPStatus.NOT_FOUND, "Not found", "There is nothing at this address.")


@app.exception_handler(Refusal)  # type: ignore[untyped-decorator]
def cannot_be_done(problem: Refusal) -> Response[Any]:
    return told(HTTPStatus.CONFLICT, "That can't be done", str(problem))


@app.exception_handler(InvalidExpression)  # type: ignore[untyped-decorator]
def invalid_expression(problem: InvalidExpression) -> Response[Any]:
    return told(HTTPStatus.UNPROCESSABLE_ENTITY, "That schedule can't be used", str(problem))


@app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]
def invalid_request(problem: RequestValidationError) -> Response[Any]:
    wrong = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in problem.errors())
    return told(HTTPStatus.UNPROCESSABLE_ENTITY, "That can't be used", wrong)


@app.exception_handler(Exception)  # type: ignore[untyped-decorator]
def failed(problem: Exception) -> Response[Any]:
    logger.error("request failed", error=in_one_line(problem), exc_info=problem)
    if is_unavailable(problem):
        text = "The database does not answer. Try again in a minute."
        return told(HTTPStatus.SERVICE_UNAVAILABLE, "Not now", text)
    if aws.is_unreachable(problem):
        text = "AWS does not answer. Try again in a minute."
        return told(HTTPStatus.SERVICE_UNAVAILABLE, "Not now", text)
    text = "Something went wrong here. The function's log says what."
    return told(HTTPStatus.INTERNAL_SERVER_ERROR, "That did not work", text)


def told(status: HTTPStatus, title: str, text: str) -> Response[Any]:
    """A problem for whom asked: a program or a person."""
    if app.current_event.raw_path.startswith(entrance.API):
        return api.answer(status, text)
    return pages.page("problem.html", status, title=title, text=text)
