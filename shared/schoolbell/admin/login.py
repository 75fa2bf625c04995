"""Signing in with a browser: the OIDC authorization-code flow with PKCE, the session's cookie, and forms that are ours.

The session is the issuer's own token in a cookie that scripts cannot read; it is verified with every request and ends
when the token does. Nothing is stored, so there is nothing to share between execution environments.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urlsplit

from aws_lambda_powertools.shared.cookies import Cookie, SameSite
from pydantic import BaseModel, ConfigDict, ValidationError

from schoolbell.admin.identity import Denied, Issuer

HOME: Final = "/admin/scheduled-jobs"
CALLBACK: Final = "/admin/callback"
LOGIN_LIVES: Final = timedelta(minutes=10)
LONGEST_COOKIE: Final = 4_000
"""Characters; browsers drop a cookie of more than 4,096 with its name and attributes."""

_OURS = re.compile(r"/admin/scheduled-jobs(?:[/?][\w./?=&%~+:-]*)?")


class LoginUnderWay(BaseModel):
    """What the browser keeps while its user is at the issuer's page."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: str
    nonce: str
    verifier: str
    next: str

    @classmethod
    def begin(cls, wanted: str | None) -> "LoginUnderWay":
        """A new login, after which the user wants to see a page."""
        return cls(
            state=secrets.token_urlsafe(24),
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            next=own_page(wanted),
        )

    @property
    def challenge(self) -> str:
        """The verifier's hash, by RFC 7636."""
        return urlsafe_b64encode(sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()

    def packed(self) -> str:
        """As it stands in the cookie."""
        return urlsafe_b64encode(self.model_dump_json().encode()).decode()

    @classmethod
    def unpacked(cls, text: str) -> "LoginUnderWay":
        """Reads the cookie.

        Raises:
            Denied: that is no login of ours.
        """
        from base64 import urlsafe_b64decode

        try:
            return cls.model_validate_json(urlsafe_b64decode(text))
        except (ValueError, ValidationError):
            raise Denied("login cookie") from None


@dataclass(frozen=True, slots=True)
class Site:
    """Where the browser finds the page."""

    origin: str
    """E.g. `https://jobs.example.org`, without a path."""

    @property
    def is_secure(self) -> bool:
        """Whether it is reached by TLS; the embedded stack on this machine is not."""
        return self.origin.startswith("https://")

    @property
    def session(self) -> str:
        """The name of the session's cookie. `__Host-` binds it to this very host."""
        return "__Host-session" if self.is_secure else "session"

    @property
    def login(self) -> str:
        """The name of the cookie of a login that is under way."""
        return "__Host-login" if self.is_secure else "login"

    @property
    def just_changed(self) -> str:
        """The name of the cookie that says that its bearer has just changed something, and must see it."""
        return "__Host-changed" if self.is_secure else "changed"

    @property
    def notice(self) -> str:
        """The name of the cookie that tells the next page what a form has come to."""
        return "__Host-notice" if self.is_secure else "notice"

    def end(self, name: str) -> Cookie:
        """What makes a browser forget a cookie."""
        return self.cookie(name, "", timedelta(0))

    def cookie(self, name: str, value: str, lives: timedelta) -> Cookie:
        """A cookie that no script can read and no other site's form sends. It ends at once without a time to live."""
        return Cookie(
            name,
            value,
            path="/",
            secure=self.is_secure,
            http_only=True,
            max_age=max(0, int(lives.total_seconds())),
            same_site=SameSite.LAX_MODE,  # strict ones are not sent when the issuer sends the browser back to us
        )


def authorization_url(issuer: Issuer, site: Site, login: LoginUnderWay, *, again: bool) -> str:
    """Where the user signs in.

    Args:
        issuer: whose page it is.
        site: where the issuer sends the user back to.
        login: this login.
        again: whether the user must show anew who they are, also where the issuer knows them.
    """
    endpoint = issuer.discovery().authorization_endpoint
    query = {
        "response_type": "code",
        "client_id": issuer.audience,
        "redirect_uri": f"{site.origin}{CALLBACK}",
        "scope": "openid",
        "state": login.state,
        "nonce": login.nonce,
        "code_challenge": login.challenge,
        "code_challenge_method": "S256",
    }
    glue = "&" if urlsplit(endpoint).query else "?"
    return f"{endpoint}{glue}{urlencode({**query, 'prompt': 'login'} if again else query)}"


def exchange(issuer: Issuer, site: Site, login: LoginUnderWay, query: Mapping[str, str]) -> str:
    """The ID token for the code that the issuer sent the user back with, not verified yet.

    Raises:
        Denied: this is not the answer to this login, or the issuer refuses the code.
        IssuerAway: the issuer does not answer.
    """
    if not hmac.compare_digest(query.get("state", "").encode(), login.state.encode()):
        raise Denied("state")
    if "code" not in query:
        raise Denied("no code")
    form = {
        "grant_type": "authorization_code",
        "client_id": issuer.audience,
        "code": query["code"],
        "redirect_uri": f"{site.origin}{CALLBACK}",
        "code_verifier": login.verifier,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = issuer.get_json(issuer.discovery().token_endpoint, headers, "POST", urlencode(form).encode())
    token = answer.get("id_token") if isinstance(answer, dict) else None
    if not isinstance(token, str):
        raise Denied("no ID token")
    return token


def own_page(wanted: str | None) -> str:
    """A page of ours to go on with; the list of jobs, if what is wanted is none.

    >>> own_page("/admin/scheduled-jobs/tutoring.drive-sync?page=2")
    '/admin/scheduled-jobs/tutoring.drive-sync?page=2'
    >>> own_page("//elsewhere.example"), own_page("/admin/scheduled-jobs@elsewhere.example"), own_page(None)
    ('/admin/scheduled-jobs', '/admin/scheduled-jobs', '/admin/scheduled-jobs')
    """
    return wanted if wanted and _OURS.fullmatch(wanted) else HOME


def cookies_of(given: Sequence[str]) -> dict[str, str]:
    """The cookies of a request, each as `name=value`; the first of a name counts."""
    pairs = (each.partition("=") for cookie in given for each in cookie.split("; "))
    return {name.strip(): value for name, _, value in reversed(list(pairs))}


def form_token(session: str) -> str:
    """What proves that a form was made for this session: only who can read the page knows it."""
    return urlsafe_b64encode(hmac.digest(session.encode(), b"schoolbell: form", "sha256")).rstrip(b"=").decode()


def is_own_form(site: Site, session: str, origin: str | None, token: str | None) -> bool:
    """Whether a form that was sent is a page's of this session, and was sent from this site."""
    return is_own_origin(site, origin) and hmac.compare_digest((token or "").encode(), form_token(session).encode())


def is_own_origin(site: Site, origin: str | None) -> bool:
    """Whether the browser says that a form was sent from this site; browsers say it with every form."""
    return origin == site.origin
