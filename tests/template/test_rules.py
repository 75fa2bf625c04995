"""The bundle keeps the project's rules, and each rule would notice if it did not."""

import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from tests.template.bundle import ACCOUNT, REGION, Bundle, bundle, loops
from tests.template.rules import RULES

type Break = Callable[[Bundle], object]


@pytest.mark.parametrize("rule", RULES)
def test_bundle_keeps_the_rule(rule: str) -> None:
    assert list(RULES[rule](bundle())) == []


def tutoring(bundle: Bundle, name: str) -> dict[str, Any]:
    """The properties of a resource of the tutoring domain."""
    properties: dict[str, Any] = bundle.templates["tutoring"].resources[name]["Properties"]
    return properties


def platform(bundle: Bundle, name: str) -> dict[str, Any]:
    """The properties of a resource of the platform domain."""
    properties: dict[str, Any] = bundle.templates["platform"].resources[name]["Properties"]
    return properties


def source(bundle: Bundle, name: str) -> dict[str, Any]:
    """The same as they are written."""
    properties: dict[str, Any] = bundle.templates["tutoring"].source["Resources"][name]["Properties"]
    return properties


def root(bundle: Bundle, name: str) -> dict[str, Any]:
    """The properties of a resource that the domains share."""
    properties: dict[str, Any] = bundle.root.resources[name]["Properties"]
    return properties


def permission(bundle: Bundle, name: str, number: int = 0) -> dict[str, Any]:
    """A statement of a policy of the tutoring domain."""
    statement: dict[str, Any] = tutoring(bundle, name)["PolicyDocument"]["Statement"][number]
    return statement


def own(bundle: Bundle, name: str) -> list[dict[str, Any]]:
    """The statements of a role's own policy."""
    statements: list[dict[str, Any]] = tutoring(bundle, name)["Policies"][0]["PolicyDocument"]["Statement"]
    return statements


APP = "functions/tutoring/auto_complete/app.py"
EVENT = "events/tutoring/auto_complete.json"
TYPED = "events/tutoring/drive_sync.json"
SYNC = "functions/tutoring/drive_sync/app.py"

BREAKS: dict[str, list[Break]] = {
    "every_job_is_in_its_template": [
        lambda b: b.files.update({"functions/tutoring/forgotten/app.py": ""}),
        lambda b: b.files.pop(APP),
    ],
    "every_job_has_its_name_everywhere": [
        lambda b: tutoring(b, "AutoComplete").update(FunctionName="schoolbell-tutoring-autocomplete"),
        lambda b: tutoring(b, "AutoCompleteQueue").update(QueueName="schoolbell-tutoring-completion"),
        lambda b: tutoring(b, "AutoCompleteDeadLetters").update(QueueName="schoolbell-tutoring-dead"),
        lambda b: tutoring(b, "AutoCompleteLog").update(LogGroupName="/aws/lambda/other"),
        lambda b: source(b, "AutoComplete").update(CodeUri="session_events"),
        lambda b: b.files.update({APP: b.files[APP].replace("tutoring.auto-complete", "tutoring.autocomplete")}),
    ],
    "every_schedule_has_its_jobs_name": [
        lambda b: tutoring(b, "DriveSyncDaily").update(Name="schoolbell-tutoring-nightly"),
        lambda b: tutoring(b, "SessionSweepEvery").update(Name="schoolbell-tutoring-session-sweep-2"),
    ],
    "every_name_begins_with_the_stacks": [
        lambda b: root(b, "ResilienceTable").update(TableName="resilience"),
        lambda b: tutoring(b, "WaitlistCascade").update(StateMachineName="schoolbell-cascade"),
    ],
    "names_fit_the_longest_stack_name": [
        lambda b: tutoring(b, "SessionSweepEvery").update(Name="schoolbell-tutoring-session-sweep-every-fifteen"),
        lambda b: tutoring(b, "AutoCompleteQueue").update(QueueName="schoolbell-" + "x" * 48),
    ],
    "the_stacks_name_is_checked_before_anything_is_made": [
        lambda b: b.root.source["Resources"]["ResilienceTable"].pop("DependsOn"),
        lambda b: b.root.source["Resources"]["AlertsKey"].pop("DependsOn"),
    ],
    "layers_are_in_their_functions_template": [
        lambda b: b.templates["tutoring"].source["Resources"].pop("RuntimeLayer"),
        lambda b: b.templates["tutoring"].source["Resources"].pop("GoogleLayer"),
    ],
    "every_job_has_an_event_and_a_test": [
        lambda b: b.files.pop(EVENT),
        lambda b: b.files.update({EVENT: "{"}),
        lambda b: b.files.update({EVENT: "[]"}),
        lambda b: b.files.update({EVENT: '{"session_id": "1"}'}),
        lambda b: b.files.update({EVENT: b.files[EVENT].replace("tutoring-auto-complete", "tutoring-other")}),
        lambda b: b.files.update({"events/tutoring/no_such_job.json": "{}"}),
        lambda b: b.files.update(
            {TYPED: b.files[TYPED].replace("drive-sync", "drive-sink").replace("scheduled_for", "at")}
        ),
        lambda b: tutoring(b, "CalendarSyncEvery").update(Name="schoolbell-tutoring-calendar-sync-renamed"),
        lambda b: [b.files.pop(path) for path in list(b.files) if path.startswith("tests/integration/tutoring")],
    ],
    "every_event_is_a_dry_run_or_says_what_it_does": [
        lambda b: b.files.update({EVENT: b.files[EVENT].replace("$comment", "comment")}),
        lambda b: b.files.update({"events/tutoring/data_retention.json": '{"scheduled_for": "2026-03-01T03:00:00Z"}'}),
    ],
    "clocks_stand_in_templates_only": [
        lambda b: b.files.update({APP: b.files[APP] + '\nWHEN = "cron(0 3 * * ? *)"\n'}),
        lambda b: b.files.update({"shared/schoolbell/when.py": '"""Runs at rate(5 minutes)."""'}),
    ],
    "the_loops_are_the_same_in_every_domain": [
        lambda b: loops(b.templates["tutoring"].source)["CalledJobs"][2]["${Job}Log"]["Properties"].update(Tags=[]),
        lambda b: loops(b.templates["tutoring"].source)["QueueJobs"][2]["${Job}Queue"]["Properties"].update(Tags=[]),
    ],
    "the_root_deploys_every_domain": [
        lambda b: b.root.source["Resources"].pop("Tutoring"),
        lambda b: b.root.source["Resources"]["Tutoring"].pop("Condition"),
        lambda b: b.root.source["Resources"]["Tutoring"]["Properties"]["Parameters"].pop("TimeZone"),
        lambda b: b.root.source["Resources"]["Tutoring"]["Properties"]["Parameters"].update(New="x"),
    ],
    "functions_get_the_settings_they_read": [
        lambda b: tutoring(b, "SessionEvents")["Environment"]["Variables"].pop("DATABASE_SECRET_ID"),
        lambda b: tutoring(b, "AutoComplete")["Environment"]["Variables"].pop("AWS_ACCOUNT_ID"),
        lambda b: platform(b, "Health")["Environment"]["Variables"].pop("QUEUE_BACKLOG_MESSAGES"),
    ],
    "a_domain_gets_no_variable_that_nothing_in_it_reads": [
        lambda b: tutoring(b, "AutoComplete")["Environment"]["Variables"].update(DATABASE_SECRET_ARN="x"),
        lambda b: tutoring(b, "AutoComplete")["Environment"]["Variables"].update(ARCHIVE_BUCKET="x"),
    ],
    "slack_can_be_told_of_the_runs_of_any_job": [
        lambda b: b.root.source["Parameters"]["SlackRuns"].pop("AllowedPattern"),
        lambda b: b.root.source["Parameters"]["SlackRuns"].update(AllowedPattern=".*"),
    ],
    "every_job_says_what_it_does": [
        lambda b: tutoring(b, "AutoComplete").pop("Description"),
        lambda b: tutoring(b, "AutoComplete").update(Description="Complete lessons."),
        lambda b: tutoring(b, "AutoComplete").update(Description="Complete lessons " * 20),
    ],
    "the_catalogue_knows_what_a_job_can_and_how_much_it_matters": [
        lambda b: tutoring(b, "DataRetention")["Environment"]["Variables"].pop("JOB_DRY_RUN"),
        lambda b: tutoring(b, "DriveCopy")["Environment"]["Variables"].update(JOB_DRY_RUN="true"),
        lambda b: tutoring(b, "DriveSync")["Environment"]["Variables"].update(JOB_DRY_RUN="yes"),
        lambda b: tutoring(b, "AutoComplete")["Environment"]["Variables"].update(JOB_CRITICAL="yes"),
        lambda b: tutoring(b, "WaitlistOffer")["Environment"]["Variables"].pop("JOB_TRIGGER"),
        lambda b: tutoring(b, "DriveCopy")["Environment"]["Variables"].update(JOB_TRIGGER="called"),
    ],
    "every_queue_has_a_dead_letter_queue": [
        lambda b: tutoring(b, "AutoCompleteQueue").pop("RedrivePolicy"),
        lambda b: tutoring(b, "AutoCompleteQueue")["RedrivePolicy"].update(
            deadLetterTargetArn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:schoolbell-tutoring-drive-copy-dlq"
        ),
    ],
    "messages_and_dead_letters_are_kept_for_14_days": [
        lambda b: tutoring(b, "AutoCompleteDeadLetters").pop("MessageRetentionPeriod"),
        lambda b: tutoring(b, "AutoCompleteQueue").pop("MessageRetentionPeriod"),
    ],
    "messages_are_tried_as_often_as_jobs_believe": [
        lambda b: tutoring(b, "AutoCompleteQueue")["RedrivePolicy"].update(maxReceiveCount=3),
        lambda b: tutoring(b, "AutoComplete")["Environment"]["Variables"].update(MAX_RECEIVE_COUNT="3"),
    ],
    "messages_are_hidden_for_six_timeouts": [
        lambda b: tutoring(b, "AutoComplete").update(Timeout=61),
        lambda b: tutoring(b, "AutoCompleteQueue").pop("VisibilityTimeout"),
    ],
    "concurrency_is_limited_at_the_queue": [
        lambda b: tutoring(b, "AutoCompleteMessages").pop("ScalingConfig"),
        lambda b: tutoring(b, "AutoComplete").update(ReservedConcurrentExecutions=5),
        lambda b: b.templates["tutoring"].resources.pop("AutoCompleteMessages"),
    ],
    "batches_report_their_failures": [
        lambda b: tutoring(b, "AutoCompleteMessages").pop("FunctionResponseTypes"),
        lambda b: tutoring(b, "AutoCompleteMessages").pop("MaximumBatchingWindowInSeconds"),
    ],
    "functions_end_in_time": [
        lambda b: tutoring(b, "AutoComplete").update(Timeout=901),
        lambda b: tutoring(b, "AutoComplete").pop("Timeout"),
        lambda b: tutoring(b, "SessionSweep").update(Timeout=120),
        lambda b: platform(b, "Admin").update(Timeout=60),
        lambda b: platform(b, "Health").update(Timeout=30),
        lambda b: platform(b, "Health")["Environment"]["Variables"].pop("AWS_ATTEMPTS"),
        lambda b: platform(b, "Admin")["Environment"]["Variables"].update(AWS_ANSWER_SECONDS="20"),
    ],
    "functions_run_alike": [
        lambda b: tutoring(b, "AutoComplete").update(Handler="app.handler"),
        lambda b: tutoring(b, "AutoComplete").update(Runtime="python3.12"),
        lambda b: tutoring(b, "AutoComplete").pop("TracingConfig"),
        lambda b: tutoring(b, "SessionSweep").pop("RecursiveLoop"),
        lambda b: tutoring(b, "AutoComplete").pop("RecursiveLoop"),
        lambda b: tutoring(b, "AutoComplete").pop("VpcConfig"),
    ],
    "nothing_is_lost_that_nobody_waits_for": [
        lambda b: b.templates["tutoring"].resources.pop("SessionSweepRetries"),
        lambda b: tutoring(b, "SessionSweepRetries")["DestinationConfig"]["OnFailure"].update(Destination="arn:x"),
    ],
    "every_delivery_is_retried_and_then_kept": [
        lambda b: tutoring(b, "DriveSyncDaily")["Target"].pop("DeadLetterConfig"),
        lambda b: tutoring(b, "SessionSweepEvery")["Targets"][0].pop("RetryPolicy"),
        lambda b: tutoring(b, "SessionSweepDeadLettersPolicy")["PolicyDocument"]["Statement"].pop(),
    ],
    "clocks_that_people_read_know_the_time_zone": [
        lambda b: source(b, "DriveSync")["Events"]["Daily"]["Properties"].pop("ScheduleExpressionTimezone"),
        lambda b: tutoring(b, "SessionSweepEvery").update(ScheduleExpression="cron(0 6 * * ? *)"),
    ],
    "schedules_tell_jobs_which_occurrence_it_is": [
        lambda b: tutoring(b, "DriveSyncDaily")["Target"].pop("Input"),
        lambda b: tutoring(b, "DriveSyncDaily").pop("GroupName"),
    ],
    "patterns_of_jobs_by_time_zone_ring_nobody": [
        lambda b: b.files.update({APP: b.files[APP] + "\n# works for the tenants of job.time_zone\n"}),
        lambda b: (
            tutoring(b, "DriveSync")["Environment"]["Variables"].update(JOB_BY_TIME_ZONE="true"),
            b.files.update({SYNC: b.files[SYNC] + "\n# works for the tenants of job.time_zone\n"}),
        ),
    ],
    "every_function_has_a_log_that_ends": [
        lambda b: tutoring(b, "AutoCompleteLog").pop("RetentionInDays"),
        lambda b: b.templates["tutoring"].resources.pop("AutoCompleteLog"),
    ],
    "every_function_has_a_role_of_its_own": [
        lambda b: tutoring(b, "AutoComplete").update(Role=tutoring(b, "DriveSync")["Role"]),
    ],
    "roles_hold_no_policies_of_amazon": [
        lambda b: tutoring(b, "AutoCompleteRole")["ManagedPolicyArns"].append(
            "arn:aws:iam::aws:policy/PowerUserAccess"
        ),
    ],
    "permissions_have_no_wildcard_actions": [
        lambda b: permission(b, "GoogleAccess", 1).update(Action="dynamodb:*"),
        lambda b: own(b, "AutoCompleteRole")[0].update(Action=["logs:Put*"]),
        lambda b: own(b, "AutoCompleteRole")[0].update(NotAction="iam:*"),
        lambda b: own(b, "AutoCompleteRole")[0].update(NotResource="arn:aws:sns:*:*:*"),
    ],
    "permissions_name_their_resources": [
        lambda b: own(b, "AutoCompleteRole")[2].update(Resource="*"),
        lambda b: permission(b, "GoogleAccess", 0).update(
            Resource=f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:*"
        ),
        lambda b: own(b, "AutoCompleteRole")[2].update(Resource=f"arn:aws:sqs:{REGION}:{ACCOUNT}:schoolbell-*"),
    ],
    "roles_are_passed_to_one_service_only": [
        lambda b: permission(b, "SessionEventsAccess", 1).pop("Condition"),
    ],
    "roles_allow_what_is_needed": [
        lambda b: own(b, "WaitlistCascadeRole")[0]["Resource"].pop(),
        lambda b: tutoring(b, "GoogleAccess")["Roles"].remove("DriveCopyRole"),
        lambda b: permission(b, "SessionEventsAccess", 0)["Action"].remove("scheduler:UpdateSchedule"),
        lambda b: permission(b, "DriveSyncAccess").update(Resource=permission(b, "SessionScheduling")["Resource"]),
        lambda b: b.files.update({SYNC: b.files[SYNC].replace("tutoring.drive-verify", "tutoring.drive-copy")}),
        lambda b: b.files.update({SYNC: b.files[SYNC] + "\naws.client('s3').put_object()\n"}),
    ],
    "roles_allow_nothing_else": [
        lambda b: tutoring(b, "GoogleAccess")["Roles"].append("DriveSyncRole"),
        lambda b: permission(b, "SessionEventsAccess", 0)["Action"].append("scheduler:GetSchedule"),
        lambda b: b.files.update({SYNC: b.files[SYNC].replace("tutoring.drive-verify", "nowhere")}),
        lambda b: b.templates["tutoring"].resources.update(
            ScheduleRole2=b.templates["tutoring"].resources["ScheduleRole"]
        ),
        lambda b: b.root.properties("JobPolicy")["PolicyDocument"]["Statement"].pop(),
    ],
    "other_services_act_for_this_account_only": [
        lambda b: tutoring(b, "OneShotRole")["AssumeRolePolicyDocument"]["Statement"][0].pop("Condition"),
    ],
    "every_queue_alarms_when_it_falls_behind": [
        lambda b: b.templates["tutoring"].resources.pop("AutoCompleteBacklog"),
        lambda b: tutoring(b, "AutoCompleteOldest")["Dimensions"][0].update(Value="another"),
        lambda b: tutoring(b, "AutoCompleteOldest").update(MetricName="NumberOfMessagesSent"),
    ],
    "every_critical_job_alarms_when_it_fails": [
        lambda b: b.templates["tutoring"].resources.pop("DataRetentionFailed"),
        lambda b: tutoring(b, "DataRetention")["Environment"]["Variables"].pop("JOB_CRITICAL"),
        lambda b: tutoring(b, "DriveCopy")["Environment"]["Variables"].update(JOB_CRITICAL="true"),
        lambda b: tutoring(b, "DataRetentionFailed")["Dimensions"][0].update(Value="tutoring.drive-sync"),
        lambda b: tutoring(b, "DataRetentionFailed").update(TreatMissingData="notBreaching"),
    ],
    "alarms_say_what_the_router_reads": [
        lambda b: tutoring(b, "AutoCompleteBacklog").update(AlarmName="backlog"),
        lambda b: tutoring(b, "AutoCompleteBacklog").update(AlarmDescription="many messages wait"),
        lambda b: tutoring(b, "AutoCompleteBacklog").pop("OKActions"),
        lambda b: tutoring(b, "AutoCompleteBacklog").update(AlarmActions=["arn:aws:sns:eu-central-1:1:other"]),
    ],
    "alarms_go_off_when_they_should": [
        lambda b: tutoring(b, "AutoCompleteOldest").update(Threshold=3_000),
        lambda b: tutoring(b, "AutoCompleteOldest").update(AlarmDescription="warning: a message has waited"),
        lambda b: platform(b, "DeadLettersMany").update(Threshold=5_000),
        lambda b: platform(b, "DeadLettersMany").update(MetricName="Failures"),
        lambda b: platform(b, "FcmCircuitOpen").update(EvaluationPeriods=50),
        lambda b: b.templates["platform"].resources.pop("FcmCircuitOpen"),
        lambda b: platform(b, "AlertRouterDead").update(AlarmName="schoolbell-something-else"),
    ],
    "alarms_are_of_this_stacks_metrics": [
        lambda b: tutoring(b, "DataRetentionFailed").update(Namespace="Schoolbell"),
    ],
    "dashboards_can_be_read": [
        lambda b: platform(b, "Dashboard").update(DashboardBody="{"),
        lambda b: platform(b, "Dashboard").update(
            DashboardBody=platform(b, "Dashboard")["DashboardBody"].replace('"x": 12', '"x": 0')
        ),
        lambda b: platform(b, "Dashboard").update(
            DashboardBody=platform(b, "Dashboard")["DashboardBody"].replace("schoolbell", "")
        ),
    ],
    "alarms_reach_their_topic": [
        lambda b: root(b, "Alerts").update(KmsMasterKeyId="alias/aws/sns"),
        lambda b: root(b, "AlertsPolicy")["PolicyDocument"]["Statement"].pop(),
        lambda b: root(b, "AlertsKey")["KeyPolicy"]["Statement"].pop(),
    ],
    "data_is_encrypted": [
        lambda b: tutoring(b, "AutoCompleteQueue").update(SqsManagedSseEnabled=False),
        lambda b: root(b, "Alerts").pop("KmsMasterKeyId"),
        lambda b: root(b, "ArchiveBucket").pop("BucketEncryption"),
        lambda b: root(b, "ResilienceTable").pop("SSESpecification"),
    ],
    "data_travels_by_tls_only": [
        lambda b: b.templates["tutoring"].resources.pop("AutoCompleteQueuePolicy"),
        lambda b: b.templates["tutoring"].resources.pop("AutoCompleteDeadLettersPolicy"),
        lambda b: b.root.resources.pop("AlertsPolicy"),
        lambda b: root(b, "ArchiveBucketPolicy")["PolicyDocument"]["Statement"][0]["Resource"].pop(),
        lambda b: root(b, "ResilienceTable").pop("ResourcePolicy"),
    ],
    "buckets_are_private_and_stay": [
        lambda b: root(b, "ArchiveBucket")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False),
        lambda b: b.root.resources["ArchiveBucket"].pop("DeletionPolicy"),
    ],
    "the_gateway_asks_for_tokens_of_the_admin_api": [
        lambda b: b.templates["platform"].properties("AdminApiRoute").update(AuthorizationType="NONE"),
        lambda b: b.templates["platform"].properties("AdminApiRoute").pop("AuthorizerId"),
        lambda b: b.templates["platform"].properties("AdminAuthorizer").update(AuthorizerType="REQUEST"),
        lambda b: b.templates["platform"].resources.pop("AdminApiRoute"),
    ],
    "state_machines_know_their_functions": [
        lambda b: tutoring(b, "WaitlistCascade")["DefinitionSubstitutions"].pop("WaitlistOfferArn"),
        lambda b: tutoring(b, "WaitlistCascade")["DefinitionSubstitutions"].update(Other="arn:x"),
    ],
}


@pytest.mark.parametrize(
    ("rule", "break_it"),
    [pytest.param(rule, b, id=f"{rule}-{n}") for rule, bs in BREAKS.items() for n, b in enumerate(bs)],
)
def test_rule_notices_when_it_is_broken(rule: str, break_it: Break) -> None:
    broken = bundle().copy()
    before = len(list(RULES[rule](broken)))
    break_it(broken)
    assert len(list(RULES[rule](broken))) > before


def test_no_rule_is_taken_on_trust() -> None:
    assert BREAKS.keys() == RULES.keys()


def test_sam_cli_expands_the_loops_in_every_environment() -> None:
    environments = tomllib.loads(bundle().files["samconfig.toml"])
    for name, commands in environments.items():
        if isinstance(commands, dict):
            assert commands["global"]["parameters"]["language_extensions"] is True, name
