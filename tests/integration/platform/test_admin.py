"""The admin API and page: what they show, what they do, and whom they do not let in."""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, update

from local.sandbox import oidc
from schoolbell import aws as clients
from schoolbell.admin.catalogue import queues_of
from schoolbell.database import Database
from schoolbell.domains.platform.schema import audit_logs, dead_letters, job_runs
from schoolbell.jobs.runtime import Runtime, install
from schoolbell.operations.catalogue import listed
from schoolbell.settings import Settings
from schoolbell.settings import settings as settings_of_environment
from tests.factories import Make
from tests.fakes.deployed import CALLED, DRY, QUEUED, RULED, SCHEDULED, SEVERAL, Aws, by_time_zone, let_a_message_wait
from tests.fakes.network import SilentServer, silent_server
from tests.fixtures.admin import JOBS, ORIGIN, Admin
from tests.fixtures.database import Stored

NOTHING = {"message": "Unauthorized"}


def schedule_of(job: str, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = clients.client("scheduler").get_schedule(
        GroupName=settings.schedule_group, Name=settings.resource_name(job)
    )
    return found


def rule_of(job: str, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = clients.client("events").describe_rule(Name=settings.resource_name(job))
    return found


def audited(stored: Stored) -> list[tuple[str, str, str]]:
    return [(row.action, row.actor, row.subject) for row in stored(audit_logs)]


@pytest.fixture
def failed_run(make: Make, now: datetime) -> Row[Any]:
    return make.row(
        job_runs,
        job=SCHEDULED,
        trigger="schedule",
        scheduled_for=now - timedelta(hours=7),
        started_at=now - timedelta(hours=7),
        finished_at=now - timedelta(hours=7) + timedelta(seconds=12.5),
        status="failed",
        error="drive_file_id: gone <b>",
        traceback='File "app.py", line 3\n',
        request_id="request-1",
        items_done=3,
    )


def letter(make: Make, settings: Settings, **columns: object) -> Row[Any]:
    defaults = {
        "job": QUEUED,
        "queue": settings.resource_name(QUEUED),
        "message_id": str(uuid4()),
        "payload": json.dumps({"session_id": "<script>"}),
        "attempts": 5,
        "reason": "failed",
        "error": "no such session",
        "dead_at": make.now - timedelta(hours=1),
    }
    return make.row(dead_letters, **defaults | columns)


# ---- whom it does not let in

EVERYWHERE = [
    ("GET", "/jobs"),
    ("GET", f"/jobs/{SCHEDULED}"),
    ("GET", f"/jobs/{SCHEDULED}/runs"),
    ("GET", f"/jobs/{SCHEDULED}/runs/not-an-id"),
    ("POST", f"/jobs/{SCHEDULED}/trigger"),
    ("POST", f"/jobs/{SCHEDULED}/pause"),
    ("PUT", f"/jobs/{SCHEDULED}/schedule"),
    ("DELETE", f"/jobs/{SCHEDULED}/schedule"),
    ("POST", f"/jobs/{QUEUED}/dead-letters/drop"),
    ("GET", "/there/is/nothing/here"),
]


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
def test_without_a_token_the_api_says_nothing(admin: Admin, method: str, path: str) -> None:
    answer = admin.request(method, f"/admin/api{path}")
    assert (answer.status, answer.json()) == (401, NOTHING)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": datetime(2026, 1, 1, tzinfo=UTC)},
        {"iss": "https://elsewhere.example"},
        {"aud": "another-client"},
        {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_with_a_token_that_is_not_right_the_api_says_nothing(
    admin: Admin, claims: dict[str, Any], stored: Stored
) -> None:
    answer = admin.api("POST", f"/jobs/{SCHEDULED}/pause", token=admin.token(**claims))
    assert (answer.status, answer.json()) == (401, NOTHING)
    assert not audited(stored)


@pytest.mark.parametrize("role", ["system_admin2", "System_Admin", "not system_admin", [], None], ids=str)
def test_with_a_role_that_is_almost_right_the_api_says_nothing(admin: Admin, role: object, stored: Stored) -> None:
    answer = admin.api("POST", f"/jobs/{SCHEDULED}/pause", token=admin.token(**{oidc.ROLE_CLAIM: role}))
    assert (answer.status, answer.json()) == (403, {"message": "Forbidden"})
    assert not audited(stored)


def test_the_api_takes_no_cookie_so_that_no_other_site_can_use_it(admin: Admin) -> None:
    cookie = f"__Host-session={admin.token()}"
    assert admin.request("POST", f"/admin/api/jobs/{SCHEDULED}/pause", {"Cookie": cookie}).status == 401


def test_refusals_name_nobody_in_the_log(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("platform.admin").addHandler(caplog.handler)
    token = admin.token(sub="ada@example.org", aud="another-client")
    admin.api("GET", "/jobs", token=token)
    admin.sign_in(token)
    admin.get()
    said = str([record.__dict__ for record in caplog.records])
    logging.getLogger("platform.admin").removeHandler(caplog.handler)
    assert "refused" in said
    assert "ada@example.org" not in said
    assert token not in said


@pytest.mark.parametrize("path", ["", f"/{SCHEDULED}", f"/{SCHEDULED}/runs/x", "/no.such/thing", "/no.such-job"])
def test_without_a_session_each_page_is_the_one_to_sign_in(admin: Admin, path: str) -> None:
    answer = admin.get(path)
    assert answer.status == 401
    assert "Sign in" in answer.text
    assert SCHEDULED not in answer.text.replace(f"next={JOBS}/{SCHEDULED}", "").replace(f"{JOBS}{path}", "")


def test_an_expired_session_is_none(admin: Admin) -> None:
    admin.sign_in(admin.token(exp=datetime(2026, 1, 1, tzinfo=UTC)))
    assert admin.get().status == 401


def test_somebody_without_the_role_is_told_so_and_can_sign_out(admin: Admin) -> None:
    admin.sign_in(admin.token(**{oidc.ROLE_CLAIM: ["teacher"]}))
    answer = admin.get()
    assert answer.status == 403
    assert "Sign out" in answer.text
    assert SCHEDULED not in answer.text
    assert admin.post("/admin/logout").cookies == {"__Host-session": ""}


def test_while_the_issuer_is_away_nobody_is_let_in(admin: Admin, database: Database, admin_settings: Settings) -> None:
    nowhere = admin_settings.model_copy(update={"admin_issuer": "http://127.0.0.1:9/oidc"})
    install(Runtime(database, nowhere, lambda: datetime(2026, 3, 2, tzinfo=UTC)))
    assert admin.api("GET", "/jobs").status == 503
    admin.sign_in()
    assert admin.get().status == 503


@pytest.mark.parametrize("path", ["", f"/{SCHEDULED}", "/no.such-job"])
def test_every_answer_has_the_security_headers(admin: Admin, path: str) -> None:
    for signed_in in (False, True):
        if signed_in:
            admin.sign_in()
        headers = admin.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in policy


def test_pages_have_no_script_or_style_of_their_own_that_the_policy_would_refuse(
    admin: Admin, make: Make, settings: Settings, failed_run: Row[Any]
) -> None:
    admin.sign_in()
    written = letter(make, settings)
    for path in ("", f"/{SCHEDULED}", f"/{QUEUED}", f"/{SCHEDULED}/schedule", f"/{QUEUED}/dead-letters/{written.id}"):
        text = admin.get(path).text
        assert "style=" not in text
        assert "<style" not in text
        assert "onclick" not in text
        assert text.count("<script") == text.count('<script src="/admin/static/') == 1


# ---- signing in


def test_a_browser_signs_in_at_the_issuer_and_comes_back_to_where_it_wanted_to_be(admin: Admin) -> None:
    from urllib.request import HTTPRedirectHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_args: Any) -> None:
            return None

    begun = admin.get(f"/admin/login/start?next={JOBS}/{SCHEDULED}")
    assert begun.status == 302
    assert "code_challenge_method=S256" in begun.headers["Location"]
    try:
        build_opener(Stay).open(begun.headers["Location"] + "&as=operator")
        raise AssertionError("no redirect")
    except OSError as error:
        back = error.headers["Location"]  # type: ignore[attr-defined]
    assert back.startswith(f"{ORIGIN}/admin/callback?")
    ended = admin.get(back.removeprefix(ORIGIN))
    assert (ended.status, ended.headers["Location"]) == (303, f"{JOBS}/{SCHEDULED}")
    assert admin.get().status == 200
    assert "__Host-login" not in admin.cookies
    assert admin.get(back.removeprefix(ORIGIN)).status == 401, "a code and a login are good for once"


@pytest.mark.parametrize("query", ["", "code=x", "state=x&code=x", "error=access_denied"])
def test_an_answer_that_nobody_asked_for_signs_nobody_in(admin: Admin, query: str) -> None:
    for with_login in (False, True):
        if with_login:
            admin.get("/admin/login/start")
        answer = admin.get(f"/admin/callback?{query}")
        assert answer.status == 401
        assert "__Host-session" not in admin.cookies


def test_the_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(admin: Admin) -> None:
    answer = admin.post("/admin/login", {"token": admin.token(), "next": f"{JOBS}?show=problems"})
    assert (answer.status, answer.headers["Location"]) == (303, f"{JOBS}?show=problems")
    (session,) = [each for each in answer.set_cookies if each.startswith("__Host-session=")]
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(session.split("; "))
    assert "Domain" not in session
    assert admin.get().status == 200


def test_on_this_machine_without_tls_cookies_need_none(
    admin: Admin, database: Database, admin_settings: Settings, now: datetime
) -> None:
    here = admin_settings.model_copy(update={"admin_url": "http://127.0.0.1:8080"})
    install(Runtime(database, here, lambda: now))
    answer = admin.post("/admin/login", {"token": admin.token()}, origin="http://127.0.0.1:8080")
    assert "session" in answer.cookies
    assert not any("Secure" in each for each in answer.set_cookies)


@pytest.mark.parametrize("token", ["", "x", "x.y.z"])
def test_a_pasted_text_that_is_no_token_signs_nobody_in(admin: Admin, token: str) -> None:
    answer = admin.post("/admin/login", {"token": token})
    assert answer.status == 401
    assert "__Host-session" not in admin.cookies


def test_a_token_that_no_cookie_can_hold_is_refused_and_not_lost(admin: Admin) -> None:
    assert admin.post("/admin/login", {"token": admin.token(filler="x" * 4_000)}).status == 401


def test_a_login_sent_from_another_site_is_refused(admin: Admin) -> None:
    for origin in (None, "null", "https://elsewhere.example", f"{ORIGIN}.elsewhere.example"):
        assert admin.post("/admin/login", {"token": admin.token()}, origin=origin).status == 403


def test_signing_out_ends_the_session_and_the_next_login_asks_anew_who_one_is(admin: Admin) -> None:
    admin.sign_in()
    answer = admin.post("/admin/logout")
    assert answer.cookies == {"__Host-session": ""}
    assert "again=true" in admin.get(answer.headers["Location"]).text
    assert "prompt=login" in admin.get("/admin/login/start?again=true").headers["Location"]


@pytest.mark.parametrize("wanted", ["//elsewhere.example", "https://elsewhere.example", "/admin/api/jobs", "\\x"])
def test_after_the_login_one_goes_nowhere_else(admin: Admin, wanted: str) -> None:
    assert admin.post("/admin/login", {"token": admin.token(), "next": wanted}).headers["Location"] == JOBS


# ---- forms of other sites

FORMS = ["run", "pause", "resume", "schedule", "schedule/delete", "dead-letters/redrive", "dead-letters/drop"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "wrong",
    [{"origin": "https://elsewhere.example"}, {"origin": None}, {"token": ""}, {"token": "x"}],
    ids=str,
)
def test_a_form_that_is_not_ours_changes_nothing(
    admin: Admin, form: str, wrong: dict[str, Any], stored: Stored
) -> None:
    admin.sign_in()
    assert admin.post(f"/{SCHEDULED}/{form}", **wrong).status == 403
    assert not audited(stored)


def test_a_form_of_another_session_changes_nothing(admin: Admin, settings: Settings) -> None:
    from schoolbell.admin.login import form_token

    admin.sign_in(admin.token(sub="operator-2"))
    others = form_token(admin.token(sub="operator-1"))
    assert admin.post(f"/{SCHEDULED}/pause", token=others).status == 403
    assert schedule_of(SCHEDULED, settings)["State"] == "ENABLED"


# ---- what it shows


def test_the_api_tells_of_every_job(
    admin: Admin, make: Make, settings: Settings, failed_run: Row[Any], now: datetime
) -> None:
    letter(make, settings)
    clients.client("sqs").send_message(QueueUrl=settings.queue_url(QUEUED), MessageBody="{}")
    jobs = {job["name"]: job for job in admin.api("GET", "/jobs").json()}
    assert jobs.keys() == {SEVERAL, QUEUED, DRY, SCHEDULED, RULED, CALLED}
    nightly = jobs[SCHEDULED]
    assert nightly["schedule"]["expression"] == "cron(0 3 * * ? *)"
    assert nightly["schedule"]["words"] == "At 03:00, Europe/Berlin"
    assert nightly["schedule"]["next_run"] == "2026-03-03T02:00:00Z"
    assert nightly["last_run"]["status"] == "failed"
    assert [problem["text"] for problem in nightly["problems"]] == ["The last run failed"]
    assert (nightly["month"]["runs"], nightly["month"]["failures"]) == (1, 1)
    assert len(nightly["month"]["days"]) == 30
    assert nightly["month"]["days"][-1] == {"runs": 1, "failures": 1}
    queued = jobs[QUEUED]
    assert (queued["dead_letters"]["count"], queued["queues"][0]["waiting"]) == (1, 1)
    assert jobs[DRY]["has_dry_run"]
    assert jobs[DRY]["is_critical"]
    assert [queue["name"].rpartition("-")[2] for queue in jobs[SEVERAL]["queues"]] == ["high", "low", "normal"]


def test_how_long_a_job_takes_on_average_is_told(admin: Admin, make: Make, now: datetime) -> None:
    for hours, seconds in ((1, 10), (25, 20), (24 * 31, 500)):
        started = now - timedelta(hours=hours)
        run = {"started_at": started, "finished_at": started + timedelta(seconds=seconds), "status": "completed"}
        make.row(job_runs, job=SCHEDULED, trigger="schedule", scheduled_for=started, **run)
    (nightly,) = (job for job in admin.api("GET", "/jobs").json() if job["name"] == SCHEDULED)
    assert (nightly["month"]["runs"], nightly["month"]["average"]) == (2, 15)


def test_what_needs_somebody_comes_first(admin: Admin, make: Make, settings: Settings, failed_run: Row[Any]) -> None:
    admin.sign_in()
    assert next(job["name"] for job in admin.api("GET", "/jobs").json()) == SCHEDULED
    text = admin.get().text
    assert "Needs attention" in text
    assert text.index('id="domain-tutoring"') < text.index('id="domain-platform"')
    assert text.index(">drive-sync</a>") < text.index(">auto-complete</a>")


def test_the_list_is_filtered_and_searched_without_a_script(admin: Admin, failed_run: Row[Any]) -> None:
    admin.sign_in()
    problems = admin.get("?show=problems").text
    assert f'href="{JOBS}/{SCHEDULED}"' in problems
    assert f'href="{JOBS}/{QUEUED}"' not in problems
    found = admin.get("?q=RETENTION").text
    assert f'href="{JOBS}/{DRY}"' in found
    assert f'href="{JOBS}/{QUEUED}"' not in found
    assert "No job is called" in admin.get("?q=%3Cscript%3E").text


def test_what_others_wrote_is_text_and_never_markup(
    admin: Admin, make: Make, settings: Settings, failed_run: Row[Any]
) -> None:
    admin.sign_in()
    written = letter(make, settings)
    assert "gone &lt;b&gt;" in admin.get(f"/{SCHEDULED}").text
    assert "gone &lt;b&gt;" in admin.get(f"/{SCHEDULED}/runs/{failed_run.id}").text
    page = admin.get(f"/{QUEUED}/dead-letters/{written.id}").text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in admin.get("?q=%3Cscript%3E").text


def test_a_run_is_told_with_its_error_and_its_log(
    admin: Admin, failed_run: Row[Any], settings: Settings, database: Database
) -> None:
    started = datetime.now(UTC) - timedelta(minutes=1)  # CloudWatch takes no old records
    with database.transaction() as connection:
        connection.execute(
            update(job_runs).values(
                started_at=started, finished_at=started + timedelta(seconds=12.5), scheduled_for=None
            )
        )
    group = f"/aws/lambda/{settings.resource_name(SCHEDULED)}"
    logs = clients.client("logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    record = {"level": "ERROR", "message": "run failed", "run_id": str(failed_run.id), "error": "gone"}
    at = int(started.timestamp() * 1000)
    logs.put_log_events(
        logGroupName=group, logStreamName="one", logEvents=[{"timestamp": at, "message": json.dumps(record)}]
    )
    told = admin.api("GET", f"/jobs/{SCHEDULED}/runs/{failed_run.id}").json()
    assert told["run"]["error"] == "drive_file_id: gone <b>"
    assert told["run"]["traceback"] == 'File "app.py", line 3\n'
    assert [(line["level"], line["message"], line["fields"]) for line in told["log"]] == [
        ("ERROR", "run failed", {"error": "gone"})
    ]
    admin.sign_in()
    page = admin.get(f"/{SCHEDULED}/runs/{failed_run.id}").text
    assert "run failed" in page
    assert "12 s" in page


def test_runs_are_read_page_by_page_each_once(admin: Admin, make: Make, now: datetime) -> None:
    written = [
        make.row(job_runs, job=QUEUED, trigger="queue", started_at=now - timedelta(minutes=number // 2)).id
        for number in range(60)
    ]
    seen: list[str] = []
    query = ""
    while True:
        page = admin.api("GET", f"/jobs/{QUEUED}/runs?{query}").json()
        seen += [run["id"] for run in page["runs"]]
        if page["next"] is None:
            break
        query = f"before={page['next'].replace('+', '%2B')}"
    assert len(seen) == 60
    assert set(seen) == {str(each) for each in written}


def test_runs_of_a_status_are_found(admin: Admin, make: Make, failed_run: Row[Any], now: datetime) -> None:
    make.row(job_runs, job=SCHEDULED, trigger="manual", status="completed", started_at=now, finished_at=now)
    found = admin.api("GET", f"/jobs/{SCHEDULED}/runs?status=failed").json()["runs"]
    assert [run["id"] for run in found] == [str(failed_run.id)]
    assert admin.api("GET", f"/jobs/{SCHEDULED}/runs?status=lost").status == 422
    admin.sign_in()
    assert admin.get(f"/{SCHEDULED}/runs?status=failed").text.count("/runs/") >= 1


NOT_THERE = [
    "/no.such-job",
    "/no.such-job/runs",
    "/no.such-job/schedule",
    "/no.such-job/dead-letters",
    f"/{SCHEDULED}/runs/{UUID(int=1)}",
    f"/{SCHEDULED}/runs/x",
    f"/{QUEUED}/dead-letters/{UUID(int=1)}",
    f"/{QUEUED}/dead-letters/x",
    f"/{QUEUED}/schedule",
    f"/{QUEUED}/runs?before=x",
    f"/{QUEUED}/runs?before=2026-01-01_x",
    f"/{QUEUED}/dead-letters?before=x",
    "/a/b/c/d/e",
]


@pytest.mark.parametrize("path", NOT_THERE)
def test_what_is_not_there_is_said_on_a_page_of_ours(admin: Admin, path: str) -> None:
    admin.sign_in()
    answer = admin.get(path)
    assert answer.status == 404
    assert "Not found" in answer.text


def test_the_openapi_document_describes_the_api_and_nothing_else(admin: Admin) -> None:
    admin.sign_in()
    document = admin.get("/admin/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert all(path.startswith("/admin/api/") for path in document["paths"])
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert set(document["paths"]["/admin/api/jobs/{job}/schedule"]) == {"put", "delete"}
    trigger = document["paths"]["/admin/api/jobs/{job}/trigger"]["post"]
    assert trigger["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Trigger")


def test_the_style_sheet_may_be_kept_for_ever_under_its_own_name_only(admin: Admin) -> None:
    from schoolbell.admin.rendering import static_address

    answer = admin.get(static_address("admin.css"))
    assert answer.status == 200
    assert answer.headers["Cache-Control"].endswith("immutable")
    assert admin.get("/admin/static/0123/admin.css").headers["Cache-Control"] == "no-store"
    for other in ("secrets.txt", "..", "identity.py"):
        assert admin.get(f"/admin/static/0123/{other}").status == 404


def test_a_message_that_waits_too_long_is_told_as_cloudwatch_knows_it(
    admin: Admin, settings: Settings, now: datetime
) -> None:
    let_a_message_wait(QUEUED, 724, settings, now)
    told = admin.api("GET", f"/jobs/{QUEUED}").json()
    assert told["queues"][0]["oldest"] == 724
    assert [problem["text"] for problem in told["problems"]] == ["The oldest message has waited 12 min"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, []),
        ({"queue_backlog_messages": 1}, ["2 messages wait"]),
        ({"oldest_message_seconds": 100}, ["The oldest message has waited 2 min 30 s"]),
    ],
)
def test_a_queue_is_judged_by_the_thresholds_of_its_alarms(
    admin: Admin,
    admin_settings: Settings,
    database: Database,
    now: datetime,
    told: dict[str, int],
    expected: list[str],
) -> None:
    let_a_message_wait(QUEUED, 140, admin_settings, now)
    let_a_message_wait(QUEUED, 150, admin_settings, now)
    install(Runtime(database, admin_settings.model_copy(update=told), lambda: now))
    problems = admin.api("GET", f"/jobs/{QUEUED}").json()["problems"]
    assert [problem["text"] for problem in problems] == expected


# ---- what it does


def test_pausing_and_resuming_is_written_down_with_the_tokens_subject(
    admin: Admin, settings: Settings, stored: Stored
) -> None:
    admin.sign_in(admin.token(sub="operator-1"))
    assert f"{SCHEDULED} is paused" in admin.told(admin.post(f"/{SCHEDULED}/pause"))
    assert schedule_of(SCHEDULED, settings)["State"] == "DISABLED"
    assert f"{SCHEDULED} is resumed" in admin.told(admin.post(f"/{SCHEDULED}/resume"))
    assert schedule_of(SCHEDULED, settings)["State"] == "ENABLED"
    assert audited(stored) == [
        ("job.paused", "operator-1", SCHEDULED),
        ("job.resumed", "operator-1", SCHEDULED),
    ]


def test_pausing_what_is_paused_is_answered_clearly(admin: Admin, stored: Stored) -> None:
    admin.sign_in()
    admin.post(f"/{RULED}/pause")
    assert "was paused already" in admin.told(admin.post(f"/{RULED}/pause"))
    assert admin.api("POST", f"/jobs/{RULED}/pause").json() == {
        "message": f"{RULED} was paused already.",
        "changed": 0,
    }
    assert len(audited(stored)) == 1


def test_pausing_what_has_no_schedule_is_refused_with_the_reason(admin: Admin) -> None:
    answer = admin.api("POST", f"/jobs/{QUEUED}/pause")
    assert answer.status == 409
    assert "its queue rings it" in answer.json()["message"]
    admin.sign_in()
    assert "its queue rings it" in admin.told(admin.post(f"/{QUEUED}/pause"))


def test_whoever_changed_something_sees_it_at_once_whatever_another_environment_remembers(admin: Admin) -> None:
    admin.sign_in()
    admin.get()  # the catalogue is remembered from here on
    admin.post(f"/{RULED}/pause")
    assert "__Host-changed" in admin.cookies
    assert '<span class="pill paused">' in admin.get().text


def test_a_job_that_runs_by_time_zone_is_shown_in_no_zone(admin: Admin, admin_settings: Settings) -> None:
    by_time_zone(SCHEDULED, admin_settings)
    admin.sign_in()
    assert "At 03:00, by time zone" in admin.get().text
    assert "At 03:00, by time zone" in admin.get(f"/{SCHEDULED}").text


def test_a_schedule_is_shown_with_its_next_five_times_before_it_is_saved(
    admin: Admin, settings: Settings, stored: Stored
) -> None:
    admin.sign_in()
    page = admin.get(f"/{SCHEDULED}/schedule?expression=cron(30+2+*+*+?+*)&timezone=Europe/Berlin").text
    assert "At 02:30, Europe/Berlin" in page
    assert page.count("<li><time") == 5
    assert "Tue 3 Mar 2026, 02:30 (UTC+01:00)" in page
    assert "Sun 29 Mar 2026, 02:30" in page, "the change of clocks takes that one away"
    assert schedule_of(SCHEDULED, settings)["ScheduleExpression"] == "cron(0 3 * * ? *)"
    assert not audited(stored)
    told = admin.told(
        admin.post(f"/{SCHEDULED}/schedule", {"expression": "cron(30 2 * * ? *)", "timezone": "Europe/Berlin"})
    )
    assert "runs from now on: At 02:30, Europe/Berlin" in told
    assert schedule_of(SCHEDULED, settings)["ScheduleExpression"] == "cron(30 2 * * ? *)"
    assert audited(stored) == [("job.rescheduled", oidc.OPERATOR, SCHEDULED)]


def test_what_a_schedule_would_do_is_told_as_one_types_without_asking_aws_each_time(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.sign_in()
    admin.get(f"/{SCHEDULED}/schedule")
    monkeypatch.setattr(clients, "client", lambda service: pytest.fail(f"{service} was asked"))
    preview = admin.get(f"/{SCHEDULED}/schedule/preview?expression=cron(30+2+*+*+?+*)&timezone=Europe/Berlin")
    assert preview.text.count("<li><time") == 5


def test_across_a_change_of_clocks_the_next_times_keep_the_wall_clock(
    admin: Admin, database: Database, admin_settings: Settings
) -> None:
    install(Runtime(database, admin_settings, lambda: datetime(2026, 3, 27, 12, tzinfo=UTC)))
    told = admin.api(
        "GET", f"/jobs/{SCHEDULED}/schedule/preview?expression=cron(0+3+*+*+?+*)&timezone=Europe/Berlin"
    ).json()
    assert told["next_runs"] == [
        "2026-03-28T02:00:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-30T01:00:00Z",
        "2026-03-31T01:00:00Z",
        "2026-04-01T01:00:00Z",
    ]


BAD_SCHEDULES = [
    (SCHEDULED, "cron(0 25 * * ? *)", "UTC"),
    (SCHEDULED, "cron(0 3 * * * *)", "UTC"),
    (SCHEDULED, "rate(1 minutes)", "UTC"),
    (SCHEDULED, "rate(0 minutes)", "UTC"),
    (SCHEDULED, "at(2026-12-24T18:00:00)", "UTC"),
    (SCHEDULED, "0 3 * * *", "UTC"),
    (SCHEDULED, "cron(0 3 * * ? *)", "Europe/Bern"),
    (SCHEDULED, "cron(0 3 * * ? *)", "../etc/passwd"),
    (SCHEDULED, "cron(0 3 1 1 ? 2020)", "UTC"),
    (RULED, "cron(0 3 * * ? *)", "Europe/Berlin"),
]


@pytest.mark.parametrize(("job", "expression", "timezone"), BAD_SCHEDULES)
def test_a_schedule_that_aws_would_reject_is_refused_with_the_reason_before_aws_sees_it(
    admin: Admin, job: str, expression: str, timezone: str, settings: Settings, stored: Stored
) -> None:
    wanted = {"expression": expression, "timezone": timezone}
    answer = admin.api("PUT", f"/jobs/{job}/schedule", wanted)
    assert answer.status == 422
    reason = answer.json()["message"]
    assert reason
    assert "\n" not in reason
    admin.sign_in()
    from html import escape
    from urllib.parse import urlencode

    page = admin.get(f"/{job}/schedule?{urlencode(wanted)}")
    assert page.status == 200
    assert escape(reason, quote=True).replace("&#x27;", "&#39;") in page.text.replace("&#34;", "&quot;")
    assert "Save this schedule" not in page.text
    assert 'class="notice bad"' in admin.told(admin.post(f"/{job}/schedule", wanted))
    assert not audited(stored)
    assert (schedule_of if job == SCHEDULED else rule_of)(job, settings)["ScheduleExpression"] in (
        "cron(0 3 * * ? *)",
        "rate(15 minutes)",
    )


def test_deleting_a_schedule_and_deleting_it_again(admin: Admin, stored: Stored) -> None:
    admin.sign_in()
    assert "has no schedule any more" in admin.told(admin.post(f"/{RULED}/schedule/delete"))
    assert "has no schedule any more" in admin.told(admin.post(f"/{RULED}/schedule/delete"))
    assert [action for action, _, _ in audited(stored)] == ["job.unscheduled"]
    assert "None any more" in admin.get(f"/{RULED}").text


def test_a_scheduled_job_is_run_now(admin: Admin, stack: Aws, settings: Settings, stored: Stored) -> None:
    answer = admin.api("POST", f"/jobs/{SCHEDULED}/trigger", {})
    assert answer.status == 200
    ((function, event),) = stack.invoked
    assert function == settings.resource_name(SCHEDULED)
    assert event["run"]["id"] == answer.json()["id"]
    assert audited(stored) == [("job.triggered", oidc.OPERATOR, SCHEDULED)]


def test_a_dry_run_is_asked_for_with_its_box(admin: Admin, stack: Aws) -> None:
    admin.sign_in()
    assert "A dry run of" in admin.told(admin.post(f"/{DRY}/run", {"dry_run": "true", "data": ""}))
    assert stack.invoked[0][1]["dry_run"] is True
    assert "has no dry run" in admin.told(admin.post(f"/{SCHEDULED}/run", {"dry_run": "true"}))


def test_a_queue_job_gets_a_message(admin: Admin, settings: Settings) -> None:
    admin.sign_in()
    told = admin.told(admin.post(f"/{QUEUED}/run", {"data": '{"session_id": "s-1"}'}))
    assert "A message of" in told
    received = clients.client("sqs").receive_message(QueueUrl=settings.queue_url(QUEUED))
    assert json.loads(received["Messages"][0]["Body"]) == {"session_id": "s-1"}


def test_of_a_job_with_several_queues_one_is_chosen(admin: Admin, settings: Settings) -> None:
    admin.sign_in()
    assert "<option>platform.notifications-high</option>" in admin.get(f"/{SEVERAL}").text
    admin.post(f"/{SEVERAL}/run", {"data": "{}", "queue": "platform.notifications-low"})
    received = clients.client("sqs").receive_message(QueueUrl=settings.queue_url("platform.notifications-low"))
    assert len(received["Messages"]) == 1
    assert "has no queue" in admin.told(admin.post(f"/{SEVERAL}/run", {"data": "{}", "queue": QUEUED}))
    assert admin.api("POST", f"/jobs/{SEVERAL}/trigger", {"data": {}, "queue": QUEUED}).status == 409


@pytest.mark.parametrize("data", ["{", "[]", "3", '"x"', "null", '{"a": NaN}'])
def test_data_that_are_no_json_object_are_refused_in_words(admin: Admin, data: str, stored: Stored) -> None:
    admin.sign_in()
    told = admin.told(admin.post(f"/{QUEUED}/run", {"data": data}))
    assert 'class="notice bad"' in told
    assert not audited(stored)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", ""),
        (b"[]", ""),
        (b'{"data": 3}', "data"),
        (b'{"dry_run": "perhaps"}', "dry_run"),
        (b'{"dry_run": false, "as": "root"}', "as"),
    ],
)
def test_a_call_of_the_api_that_is_not_valid_is_refused_with_the_field(
    admin: Admin, body: bytes, field: str, stored: Stored
) -> None:
    answer = admin.api("POST", f"/jobs/{SCHEDULED}/trigger", body)
    assert answer.status == 422
    assert field in answer.json()["message"]
    assert not audited(stored)


def test_a_dead_letter_is_redriven_once(admin: Admin, make: Make, settings: Settings, stored: Stored) -> None:
    admin.sign_in()
    written = letter(make, settings, payload='{"session_id": "s-1"}')
    path = f"/{QUEUED}/dead-letters/{written.id}/redrive"
    assert "sent again" in admin.told(admin.post(path))
    assert "was redriven already" in admin.told(admin.post(path))
    received = clients.client("sqs").receive_message(QueueUrl=settings.queue_url(QUEUED), MaxNumberOfMessages=10)
    assert [json.loads(message["Body"]) for message in received["Messages"]] == [{"session_id": "s-1"}]
    (row,) = stored(dead_letters)
    assert (row.resolution, row.resolved_by) == ("redriven", oidc.OPERATOR)
    assert "redriven" in admin.get(f"/{QUEUED}/dead-letters?resolved=true").text


def test_a_dead_letter_is_dropped_once(admin: Admin, make: Make, settings: Settings, stored: Stored) -> None:
    written = letter(make, settings)
    path = f"/jobs/{QUEUED}/dead-letters/{written.id}"
    assert admin.api("POST", f"{path}/drop").json()["changed"] == 1
    assert admin.api("POST", f"{path}/drop").json() == {
        "message": f"This dead letter of {QUEUED} was dropped already.",
        "changed": 0,
    }
    assert "was dropped already" in admin.api("POST", f"{path}/redrive").json()["message"]
    assert stored(dead_letters)[0].resolution == "dropped"
    assert [action for action, _, _ in audited(stored)] == ["dead-letters.dropped"]


def test_all_dead_letters_are_dropped_or_there_are_none(admin: Admin, make: Make, settings: Settings) -> None:
    admin.sign_in()
    for _ in range(3):
        letter(make, settings)
    assert f"3 messages of {QUEUED} are dropped" in admin.told(admin.post(f"/{QUEUED}/dead-letters/drop"))
    assert "has no dead letters" in admin.told(admin.post(f"/{QUEUED}/dead-letters/drop"))
    assert "has no dead letters" in admin.told(admin.post(f"/{QUEUED}/dead-letters/redrive"))


def test_all_dead_letters_are_redriven(admin: Admin, settings: Settings) -> None:
    admin.sign_in()
    dead, alive = settings.dead_letter_queue_url(QUEUED), settings.queue_url(QUEUED)
    for number in range(3):
        clients.client("sqs").send_message(QueueUrl=dead, MessageBody=json.dumps({"number": number}))
    assert f"3 messages of {QUEUED} are sent again" in admin.told(admin.post(f"/{QUEUED}/dead-letters/redrive"))
    received = clients.client("sqs").receive_message(QueueUrl=alive, MaxNumberOfMessages=10)
    assert len(received["Messages"]) == 3


def test_a_letter_is_dealt_with_under_its_own_job_only(admin: Admin, make: Make, settings: Settings) -> None:
    written = letter(make, settings)
    assert admin.api("POST", f"/jobs/{SEVERAL}/dead-letters/{written.id}/drop").status == 404


UNKNOWN: Sequence[tuple[str, str, Any]] = [
    ("POST", "trigger", {}),
    ("POST", "pause", None),
    ("POST", "resume", None),
    ("PUT", "schedule", {"expression": "rate(5 minutes)"}),
    ("DELETE", "schedule", None),
    ("POST", "dead-letters/redrive", None),
    ("POST", "dead-letters/drop", None),
    ("POST", f"dead-letters/{UUID(int=1)}/redrive", None),
]


@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN)
def test_acts_on_what_is_not_there_are_answered_clearly(admin: Admin, method: str, path: str, body: Any) -> None:
    answer = admin.api(method, f"/jobs/no.such-job/{path}", body)
    assert answer.status == 404
    assert answer.json()["message"].startswith("There is no")


# ---- when something else is broken


def test_while_the_database_is_away_the_page_says_so(admin: Admin, admin_settings: Settings, now: datetime) -> None:
    from schoolbell.database import DatabaseAddress

    nowhere = DatabaseAddress.from_url("postgresql://nobody@127.0.0.1:9/nothing?sslmode=disable")
    install(Runtime(Database(lambda: nowhere, timedelta(seconds=1)), admin_settings, lambda: now))
    admin.sign_in()
    answer = admin.get()
    assert answer.status == 503
    assert "The database does not answer" in answer.text


@pytest.fixture
def silent_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    """AWS, which answers no more."""
    with silent_server() as server:
        for name, value in {"AWS_ENDPOINT_URL": server.url, "AWS_ANSWER_SECONDS": "0.2", "AWS_ATTEMPTS": "1"}.items():
            monkeypatch.setenv(name, value)
        settings_of_environment.cache_clear()
        clients.forget_clients()
        yield server
    settings_of_environment.cache_clear()
    clients.forget_clients()


@pytest.mark.parametrize("page", ["", f"/{SCHEDULED}"])
def test_while_aws_does_not_answer_the_page_says_so(admin: Admin, silent_aws: SilentServer, page: str) -> None:
    admin.sign_in()
    answer = admin.get(f"{JOBS}{page}")
    assert answer.status == 503
    assert "AWS does not answer" in answer.text
    assert silent_aws.callers == 1, "no other call waits as long for nothing"


def test_one_queue_that_gets_no_answer_speaks_for_all(
    admin: Admin, database: Database, settings: Settings, now: datetime, request: pytest.FixtureRequest
) -> None:
    jobs = listed(database, settings, now)
    assert sum(len(job.queues) for job in jobs) > 1
    silent: SilentServer = request.getfixturevalue("silent_aws")
    request.getfixturevalue("monkeypatch").setattr("schoolbell.operations.queues.CALLS_AT_ONCE", 1)
    assert queues_of(jobs, settings, now) == {}
    assert silent.callers == 1


def test_a_queue_that_cannot_be_read_does_not_take_the_list_away(admin: Admin, settings: Settings) -> None:
    clients.client("sqs").delete_queue(QueueUrl=settings.queue_url(QUEUED))
    admin.sign_in()
    answer = admin.get()
    assert answer.status == 200
    assert f'href="{JOBS}/{QUEUED}"' in answer.text
