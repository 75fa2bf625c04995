"""How one gets in: what is open to everybody (the style sheet, the login), and what is asked of everybody else."""

from http import HTTPStatus
from typing import Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from schoolbell.admin import rendering
from schoolbell.admin.identity import Denied, Forbidden, Issuer, IssuerAway, Operator
from schoolbell.admin.login import (
    CALLBACK,
    LOGIN_LIVES,
    LONGEST_COOKIE,
    LoginUnderWay,
    Site,
    authorization_url,
    cookies_of,
    exchange,
    is_own_form,
    is_own_origin,
    own_page,
)
from schoolbell.admin.pages import Html, Visit, desk, page, seen_other, sent_form, unpack_notice, visit
from schoolbell.admin.problems import NoSuchThing
from schoolbell.settings import Settings

router = Router()  # type: ignore[no-untyped-call]

LOGIN: Final = "/admin/login"
START: Final = "/admin/login/start"
LOGOUT: Final = "/admin/logout"
STATIC: Final = "/admin/static/"
API: Final = "/admin/api/"
DOCUMENT: Final = "/admin/openapi.json"
KEPT_FOR_EVER: Final = "public, max-age=31536000, immutable"


class NotOurForm(Exception):
    """A form that was not made by this page for this session, or was sent from elsewhere."""


def site_of(settings: Settings, request: APIGatewayProxyEventV2) -> Site:
    """Where the browser finds the page: where the parameter says, or at the API's own address."""
    return Site(settings.admin_url.rstrip("/") or f"https://{request.request_context.domain_name}")


def visit_of(request: APIGatewayProxyEventV2, site: Site) -> Visit:
    """What a browser brings."""
    cookies = cookies_of(request.cookies)
    return Visit(
        site=site,
        session=cookies.get(site.session, ""),
        has_just_changed=site.just_changed in cookies,
        notice=unpack_notice(cookies.get(site.notice)),
        login=cookies.get(site.login, ""),
    )


def is_open(path: str) -> bool:
    """Whether a path is for everybody."""
    return path in (LOGIN, START, CALLBACK, LOGOUT) or path.startswith(STATIC)


def admit(request: APIGatewayProxyEventV2, seen: Visit, issuer: Issuer) -> Operator:
    """Who makes a request. The API takes a bearer token and no cookie, the page its cookie and no other.

    Raises:
        Denied: nobody who may.
        NotOurForm: it changes something, and is no form of the page's.
        IssuerAway: nobody can be verified now.
    """
    path, method = request.raw_path, request.request_context.http.method
    scheme, _, bearer = (request.headers.get("authorization") or "").partition(" ")
    is_bearer = scheme.lower() == "bearer" and bool(bearer)
    if path.startswith(API) or (path == DOCUMENT and is_bearer):
        if not is_bearer:
            raise Denied("no token")
        return issuer.operator(bearer.strip())
    if not seen.session:
        raise Denied("no session")
    operator = issuer.operator(seen.session)
    if method not in ("GET", "HEAD") and not is_own_form(
        seen.site, seen.session, request.headers.get("origin"), sent_form().get("form_token")
    ):
        raise NotOurForm
    return operator


# ---- for everybody


@router.get(f"{STATIC}<digest>/<name>", include_in_schema=False, enable_validation=False)
def read_static(digest: str, name: str) -> Response[str]:
    found = rendering.static_file(name)
    if found is None:
        raise NoSuchThing("There is no such file.")
    text, kind = found
    is_current = rendering.static_address(name) == f"{STATIC}{digest}/{name}"
    headers = {"Cache-Control": KEPT_FOR_EVER if is_current else "no-store"}
    return Response(HTTPStatus.OK, kind, text, headers, compress=True)


@router.get(LOGIN, include_in_schema=False, enable_validation=False)
def show_login() -> Html:
    return sign_in(HTTPStatus.OK, router.current_event.query_string_parameters.get("next"))


@router.get(START, include_in_schema=False, enable_validation=False)
def start_login() -> Html:
    query = router.current_event.query_string_parameters
    login, site = LoginUnderWay.begin(query.get("next")), visit().site
    try:
        address = authorization_url(desk().issuer, site, login, again=query.get("again") == "true")
    except IssuerAway:
        return issuer_away()
    return Response(
        HTTPStatus.FOUND,
        "text/html; charset=utf-8",
        "",
        {"Location": address},
        [site.cookie(site.login, login.packed(), LOGIN_LIVES)],
    )


@router.get(CALLBACK, include_in_schema=False, enable_validation=False)
def end_login() -> Html:
    """The issuer sends the browser back here, with a code for a token."""
    seen, issuer = visit(), desk().issuer
    try:
        login = LoginUnderWay.unpacked(seen.login)
        token = exchange(issuer, seen.site, login, router.current_event.query_string_parameters)
        return begin_session(issuer.operator(token, nonce=login.nonce), token, login.next)
    except Denied as refusal:
        return refuse(refusal)
    except IssuerAway:
        return issuer_away()


@router.post(LOGIN, include_in_schema=False, enable_validation=False)
def paste_token() -> Html:
    if not is_own_origin(visit().site, router.current_event.headers.get("origin")):
        return not_our_form()
    form = sent_form()
    token = form.get("token", "").strip()
    try:
        return begin_session(desk().issuer.operator(token), token, own_page(form.get("next")))
    except Denied as refusal:
        return refuse(refusal)
    except IssuerAway:
        return issuer_away()


@router.post(LOGOUT, include_in_schema=False, enable_validation=False)
def log_out() -> Html:
    site = visit().site
    if not is_own_origin(site, router.current_event.headers.get("origin")):
        return not_our_form()
    desk().logger.info("signed out")
    return seen_other(f"{LOGIN}?again=true", cookies=[site.end(site.session)])


def begin_session(operator: Operator, token: str, then: str) -> Html:
    """Gives the browser its cookie, and sends it on."""
    if len(token) > LONGEST_COOKIE:
        raise Denied("the token is too long for a cookie")
    site = visit().site
    desk().logger.info("signed in")
    lives = operator.expires_at - desk().now
    return seen_other(then, cookies=[site.cookie(site.session, token, lives), site.end(site.login)])


# ---- what is said to whom is not let in: nothing but that


def refuse(refusal: Denied, wanted: str | None = None) -> Html:
    """The page for somebody who is not signed in, or may not see this."""
    desk().logger.warning("refused", reason=str(refusal))
    if isinstance(refusal, Forbidden):
        return page(
            "problem.html",
            HTTPStatus.FORBIDDEN,
            title="Not for this account",
            text="This page is for system administrators. Sign out to use another account.",
        )
    return sign_in(HTTPStatus.UNAUTHORIZED, wanted)


def sign_in(status: HTTPStatus, wanted: str | None) -> Html:
    """The page to sign in."""
    query = f"next={own_page(wanted)}" + ("&again=true" if "again" in _query() else "")
    return page(
        "login.html",
        status,
        sign_in=f"{START}?{query}",
        next=own_page(wanted),
        is_refused=router.current_event.http_method == "POST",
    )


def issuer_away() -> Html:
    """The page while nobody can be verified."""
    text = "The identity provider does not answer. Try again in a minute."
    return page("problem.html", HTTPStatus.SERVICE_UNAVAILABLE, title="Nobody can sign in now", text=text)


def not_our_form() -> Html:
    """The page for a form that is not ours, or of another session."""
    desk().logger.warning("refused", reason="form")
    text = "The form was not made for this session. Nothing was changed; go back and try again."
    return page("problem.html", HTTPStatus.FORBIDDEN, title="That form was not accepted", text=text)


def _query() -> dict[str, str]:
    return dict(router.current_event.query_string_parameters)
