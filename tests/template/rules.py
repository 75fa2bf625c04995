"""The project's rules for its bundle: each looks at all of it and yields, in a line each, where it is broken."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from schoolbell.alerts import Severity
from schoolbell.aws import CONNECT_SECONDS
from schoolbell.jobs.context import HAND_ON_BELOW
from schoolbell.settings import Settings
from tests.template import permissions
from tests.template.bundle import ACCOUNT, ROOT, STACK, Bundle, Job, Json, Template, loops, stack_name

type Rule = Callable[[Bundle], Iterator[str]]

RULES: Final[dict[str, Rule]] = {}

DESCRIPTION: Final = 256  # characters that Lambda takes
# When each kind of alarm goes off, unless a parameter says otherwise: severity, threshold, periods that it must last.
ALARMS: Final = {
    "queue-backlog": (Severity.WARNING, 1_000, 1),
    "oldest-message": (Severity.CRITICAL, 300, 1),
    "dead-letters-all-queues": (Severity.CRITICAL, 50, 1),
    "critical-job-failed": (Severity.CRITICAL, 1, 1),
    "circuit-open": (Severity.WARNING, 0, 5),
    "alerts-not-told": (Severity.CRITICAL, 0, 1),
}
CIRCUITS: Final = {
    *("google-calendar", "google-drive"),
    *(f"notifications-{provider}" for provider in ("ses", "sns", "sendgrid", "twilio", "fcm")),
}
# What all loops make alike; roles and policies differ by kind.
ALIKE: Final = tuple(f"${{Job}}{what}" for what in ("Log", "DeadLetters", "Retries", "Queue", "Backlog", "Oldest"))
DAY: Final = 24 * 60 * 60
# Seconds: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
GATEWAY_WAITS: Final = 30
# Actions whose resources have no names, or none yet.
UNNAMEABLE: Final = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "sqs:ListQueues",
    "lambda:ListEventSourceMappings",
    "lambda:ListFunctions",
    "cloudwatch:GetMetricData",
    "events:ListRules",
    "scheduler:ListSchedules",
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}
# By type: the property with a resource's name, and the characters that AWS takes. Layers' and alarms' are far from it.
NAME_LIMITS: Final = {
    "AWS::Events::Rule": ("Name", 64),
    "AWS::Lambda::Function": ("FunctionName", 64),
    "AWS::Scheduler::Schedule": ("Name", 64),
    "AWS::Scheduler::ScheduleGroup": ("Name", 64),
    "AWS::SQS::Queue": ("QueueName", 80),
    "AWS::StepFunctions::StateMachine": ("StateMachineName", 80),
    "AWS::Cognito::UserPoolDomain": ("Domain", 63),
}
ANY_TOPIC: Final = "arn:aws:sns:*:*:*"  # what SNS publishes to besides telephones, which have no ARNs
# Whose resources are the whole stack's by their task: they send what any job has left in the outbox, ring any job,
# or count what is in any queue.
SENDS_FOR_ALL: Final = {"OutboxRelayAccess", "RunWatchdogAccess", "DelayedTriggerRole", "HealthAccess", "AdminAccess"}
ALWAYS_ON: Final = {"platform"}  # the domains that have no switch, since the others stand on them
OF_LAMBDA: Final = {"AWS_REGION"}  # set by Lambda itself
LEFT_OUT: Final = {
    ("platform.admin", "SCHEDULER_ROLE_ARN"): "the page schedules nothing; the client elsewhere asks CloudFormation",
}
OF_THE_CALLED: Final = {"AWS_ANSWER_SECONDS", "AWS_ATTEMPTS"}  # others have the time that the defaults take
# By readers of the function as it is deployed: the catalogue, the entrypoint, Powertools.
READ_BY_OTHERS: Final = ("JOB_", "POWERTOOLS_", "SCHOOLBELL_")
VARYING: Final = ("id", "time", "scheduled_for")  # from one event of a clock to the next
RUNG: Final = re.compile(r"^@(scheduled|queue|batch)_job\(", re.MULTILINE)  # by a clock or a queue
# Another resource in a template as JSON: by Ref, by GetAtt, or in the text of a Sub.
REFERENCE: Final = re.compile(r'(?:"Ref": "|"Fn::GetAtt": \[?"|\$\{)(\w+)')
CLOCK: Final = re.compile(r"\b(cron|rate)\([^)]*[\d*?][^)]*\)")


def rule(check: Rule) -> Rule:
    """Registers a rule by its name."""
    RULES[check.__name__] = check
    return check


# ---- names, and what belongs to a job


@rule
def every_job_is_in_its_template(bundle: Bundle) -> Iterator[str]:
    folders = {(job.domain, job.folder) for job in bundle.jobs}
    functions = {
        (domain, resource["Properties"]["CodeUri"])
        for domain, template in bundle.domains.items()
        for resource in template.source["Resources"].values()
        if isinstance(resource, dict) and resource["Type"] == "AWS::Serverless::Function"
    }
    for domain, folder in sorted(folders - functions):
        yield f"functions/{domain}/{folder} is in no template"
    for domain, folder in sorted(functions - folders):
        yield f"functions/{domain}/template.yaml has {folder}, which has no app.py"


@rule
def every_job_has_its_name_everywhere(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        template = bundle.templates[job.domain]
        source = template.source["Resources"].get(job.logical_id, {}).get("Properties", {})
        yield from _differs(f"{job}: CodeUri of {job.logical_id}", source.get("CodeUri"), job.folder)
        names = {
            job.logical_id: ("FunctionName", job.resource_name),
            f"{job.logical_id}Log": ("LogGroupName", f"/aws/lambda/{job.resource_name}"),
            f"{job.logical_id}DeadLetters": ("QueueName", f"{job.resource_name}-dlq"),
        }
        if bundle.queue(job):
            names[f"{job.logical_id}Queue"] = ("QueueName", job.resource_name)
        for logical_id, (key, name) in names.items():
            yield from _differs(f"{job}: {key} of {logical_id}", template.properties(logical_id).get(key), name)
        declared = _declared_name(bundle.files[f"functions/{job.domain}/{job.folder}/app.py"])
        yield from _differs(f"{job}: the name that its app.py declares", declared, job.name)


@rule
def every_schedule_has_its_jobs_name(bundle: Bundle) -> Iterator[str]:
    jobs = {job.resource_name for job in bundle.jobs}
    for domain, template in bundle.domains.items():
        for logical_id, properties in template.of_type("AWS::Scheduler::Schedule", "AWS::Events::Rule"):
            for target in _targets(properties):
                name, job = properties.get("Name", ""), target["Arn"].rpartition(":")[2]
                is_clock = "ScheduleExpression" in properties
                if job not in jobs or not (name == job or (not is_clock and name.startswith(f"{job}-"))):
                    yield f"{domain}: {logical_id} is called {name}, and rings {job}"


@rule
def every_name_begins_with_the_stacks(bundle: Bundle) -> Iterator[str]:
    keys = ("QueueName", "FunctionName", "TopicName", "TableName", "StateMachineName", "LayerName", "Name")
    for domain, template in bundle.templates.items():
        prefix = STACK if domain == ROOT else f"{STACK}-{domain}-"
        for logical_id, resource in template.resources.items():
            for key in keys:
                name = resource.get("Properties", {}).get(key)
                if isinstance(name, str) and not f"{name}-".startswith(prefix):  # the API has the domain's own name
                    yield f"{domain}: {logical_id} is called {name}, which does not begin with {prefix}"


@rule
def names_fit_the_longest_stack_name(bundle: Bundle) -> Iterator[str]:
    longest = stack_name()["MaxLength"]
    for domain, template in bundle.templates.items():
        for logical_id, resource in template.resources.items():
            key, limit = NAME_LIMITS.get(resource["Type"], ("", 0))
            name = resource.get("Properties", {}).get(key)
            if isinstance(name, str) and (length := len(name) - len(STACK) + longest) > limit:
                yield f"{domain}: the name of {logical_id} may have {length} characters, and AWS takes {limit}"


@rule
def the_stacks_name_is_checked_before_anything_is_made(bundle: Bundle) -> Iterator[str]:
    resources, after = bundle.root.source["Resources"], {"StackName"}
    while more := {name for name, resource in resources.items() if _needed(resource) & after} - after:
        after |= more
    for name in sorted(resources.keys() - after):
        yield f"{name} does not wait for StackName"


@rule
def every_job_has_an_event_and_a_test(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        test = f"tests/integration/{job.domain}/test_{job.folder}.py"
        if test not in bundle.files and not any(_tests(text, job) for text in _tests_of(bundle, job.domain)):
            yield f"{job} has no {test}"
        event = bundle.files.get(f"events/{job.domain}/{job.folder}.json")
        if event is None:
            yield f"{job} has no events/{job.domain}/{job.folder}.json"
        else:
            yield from _misfits(bundle, job, event)
    expected = {f"events/{job.domain}/{job.folder}.json" for job in bundle.jobs}
    for path in bundle.files:
        if path.startswith("events/") and path not in expected:
            yield f"{path} is no job's event"


@rule
def every_event_is_a_dry_run_or_says_what_it_does(bundle: Bundle) -> Iterator[str]:
    """An event of `events/` is what people invoke a function with by hand, on whatever stack is at hand."""
    for job in bundle.jobs:
        text = bundle.files.get(f"events/{job.domain}/{job.folder}.json", "{}")
        app = bundle.files[f"functions/{job.domain}/{job.folder}/app.py"]
        first = text.removeprefix("{\n  ").partition("\n")[0]
        if _variables(bundle, job).get("JOB_DRY_RUN") == "true":
            if json.loads(text) != {"dry_run": True}:
                yield f"{job} has a dry run, and its event is none"
        elif RUNG.search(app) and not re.match(r'"\$comment": "(No dry run|Its ids are nobody\'s)\W.*\.",$', first):
            yield f"{job}: the first line of its event does not say what it does"


# What reads expressions, or has people write them, says how they look.
SHOWS_EXAMPLES = ("shared/schoolbell/operations/expressions.py", "shared/schoolbell/cli/")


@rule
def clocks_stand_in_templates_only(bundle: Bundle) -> Iterator[str]:
    for path, text in bundle.files.items():
        is_product = path.endswith(".py") and path.startswith(("functions/", "shared/"))
        if is_product and not path.startswith(SHOWS_EXAMPLES) and (clock := CLOCK.search(text)):
            yield f"{path} says {clock[0]}"


@rule
def the_loops_are_the_same_in_every_domain(bundle: Bundle) -> Iterator[str]:
    first: dict[str, tuple[str, Json]] = {}
    for domain, template in bundle.domains.items():
        for name, (_, _, body) in loops(template.source).items():
            alike = {name: body} | {f"what loops make of {key}": body[key] for key in ALIKE if key in body}
            for what, made in alike.items():
                other, expected = first.setdefault(what, (domain, made))
                if made != expected:
                    yield f"{what} differs between {other} and {domain}"


@rule
def the_root_deploys_every_domain(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.domains.items():
        application = bundle.root.source["Resources"].get(domain.capitalize(), {})
        location = application.get("Properties", {}).get("Location")
        yield from _differs(f"Location of {domain}", location, f"functions/{domain}/template.yaml")
        given = application.get("Properties", {}).get("Parameters", {}).keys()
        wanted = {name for name, declared in template.source["Parameters"].items() if "Default" not in declared}
        for name in sorted(wanted ^ given):
            yield f"{domain}: the parameter {name} is {'not given' if name in wanted else 'not known'}"
        if domain not in ALWAYS_ON and not _has_switch(bundle.root, domain):
            yield f"{domain} has no parameter {domain.capitalize()}Enabled to switch it off"


@rule
def layers_are_in_their_functions_template(bundle: Bundle) -> Iterator[str]:
    """`sam local` finds no others."""
    for domain, template in bundle.domains.items():
        source = template.source
        functions = [source["Globals"]["Function"], *(each.get("Properties", {}) for each in _functions_of(source))]
        for layer in {layer["Ref"] for function in functions for layer in function.get("Layers", [])}:
            if source["Resources"].get(layer, {}).get("Type") != "AWS::Serverless::LayerVersion":
                yield f"{domain}: the layer {layer} is not in the template"


@rule
def functions_get_the_settings_they_read(bundle: Bundle) -> Iterator[str]:
    """Also one with a default, once a parameter sets it: else a function would go by another value than the rest."""
    set_by_template = {name for job in bundle.jobs for name in _variables(bundle, job)} - OF_THE_CALLED
    without_default = {name.upper() for name, field in Settings.model_fields.items() if not field.default}
    for job in bundle.jobs:
        given = _variables(bundle, job)
        for name in sorted(_read_by(bundle, job) & (set_by_template | without_default) - given.keys() - OF_LAMBDA):
            if not name.startswith("JOB_") and (job.name, name) not in LEFT_OUT:
                yield f"{job} reads {name}, and does not get it"
        yield from _differs(f"{job}: SCHOOLBELL_STACK", given.get("SCHOOLBELL_STACK"), STACK)
        yield from _differs(f"{job}: AWS_ACCOUNT_ID", given.get("AWS_ACCOUNT_ID"), ACCOUNT)


@rule
def a_domain_gets_no_variable_that_nothing_in_it_reads(bundle: Bundle) -> Iterator[str]:
    for domain in bundle.domains:
        jobs = [job for job in bundle.jobs if job.domain == domain]
        given = {name for job in jobs for name in _variables(bundle, job) if not name.startswith(READ_BY_OTHERS)}
        for name in sorted(given.difference(*(_read_by(bundle, job) for job in jobs))):
            yield f"{domain} gets {name}, which nothing in it reads"


@rule
def slack_can_be_told_of_the_runs_of_any_job(bundle: Bundle) -> Iterator[str]:
    allowed = bundle.root.source["Parameters"]["SlackRuns"].get("AllowedPattern", "")
    for name in ("", *(job.name for job in bundle.jobs)):
        if not re.fullmatch(allowed, name):
            yield f"SlackRuns does not allow {name!r}"
    if re.fullmatch(allowed, "data-retention"):
        yield "SlackRuns allows what can be no job's name"


# What the catalogue of jobs shows is read off the functions themselves.


@rule
def every_job_says_what_it_does(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        description = bundle.function(job).get("Description", "")
        if not description or description.endswith(".") or "\n" in description:
            yield f"{job}: its Description is not a line without a full stop"
        if len(description) > DESCRIPTION:
            yield f"{job}: its Description has {len(description)} characters, and Lambda takes {DESCRIPTION}"


@rule
def the_catalogue_knows_what_a_job_can_and_how_much_it_matters(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        given = _variables(bundle, job)
        app = bundle.files[f"functions/{job.domain}/{job.folder}/app.py"]
        yield from _differs(f"{job}: JOB_TRIGGER", given.get("JOB_TRIGGER"), None if RUNG.search(app) else "called")
        for name in ("JOB_DRY_RUN", "JOB_CRITICAL"):
            if given.get(name) not in (None, "true"):
                yield f"{job}: {name} is {given[name]!r}; it is 'true', or left out"
        if "job.dry_run" in app and "JOB_DRY_RUN" not in given:
            yield f"{job} asks whether it is a dry run, and has none without JOB_DRY_RUN"
        if "JOB_DRY_RUN" in given and "@scheduled_job(" not in app:
            yield f"{job} has JOB_DRY_RUN, and only scheduled jobs have dry runs"


# ---- queues


@rule
def every_queue_has_a_dead_letter_queue(bundle: Bundle) -> Iterator[str]:
    for job, queue in _queues(bundle):
        arn = queue.get("RedrivePolicy", {}).get("deadLetterTargetArn", "")
        yield from _differs(f"{job}: the queue's dead letters", arn.rpartition(":")[2], f"{queue['QueueName']}-dlq")


@rule
def messages_and_dead_letters_are_kept_for_14_days(bundle: Bundle) -> Iterator[str]:
    """As long as SQS can: the database may be away for days, and a dead letter wait for the end of a holiday."""
    for domain, template in bundle.templates.items():
        for logical_id, queue in template.of_type("AWS::SQS::Queue"):
            yield from _differs(f"{domain}: {logical_id}", queue.get("MessageRetentionPeriod"), 14 * DAY)


@rule
def messages_are_tried_as_often_as_jobs_believe(bundle: Bundle) -> Iterator[str]:
    for job, queue in _queues(bundle):
        tries = queue.get("RedrivePolicy", {}).get("maxReceiveCount", 0)
        if tries < 5:
            yield f"{job}: maxReceiveCount is {tries}"
        believed = bundle.function(job)["Environment"]["Variables"].get("MAX_RECEIVE_COUNT")
        yield from _differs(f"{job}: MAX_RECEIVE_COUNT", believed, str(tries))


@rule
def messages_are_hidden_for_six_timeouts(bundle: Bundle) -> Iterator[str]:
    for job, queue in _queues(bundle):
        hidden, timeout = queue.get("VisibilityTimeout", 30), bundle.function(job).get("Timeout", 3)
        if hidden < 6 * timeout:
            yield f"{job}: messages are hidden for {hidden} s, its function may take {timeout} s"


@rule
def concurrency_is_limited_at_the_queue(bundle: Bundle) -> Iterator[str]:
    for job, queue in _queues(bundle):
        mapping = _mapping(bundle, job, queue["QueueName"])
        if not 2 <= mapping.get("ScalingConfig", {}).get("MaximumConcurrency", 0) <= 1000:
            yield f"{job}: no MaximumConcurrency at its queue"
    for job in bundle.jobs:
        if "ReservedConcurrentExecutions" in bundle.function(job):
            yield f"{job}: reserved concurrency makes Lambda throttle the queue's poller, which costs messages receives"


@rule
def batches_report_their_failures(bundle: Bundle) -> Iterator[str]:
    for job, queue in _queues(bundle):
        mapping = _mapping(bundle, job, queue["QueueName"])
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{job}: one failed message would bring the whole batch back"
        if mapping.get("BatchSize", 10) > 10 and mapping.get("MaximumBatchingWindowInSeconds", 0) < 1:
            yield f"{job}: AWS refuses a batch of more than 10 without a window"


# ---- functions and what rings them


@rule
def functions_end_in_time(bundle: Bundle) -> Iterator[str]:
    integrations = bundle.templates["platform"].of_type("AWS::ApiGatewayV2::Integration")
    waited_for = {properties["IntegrationUri"].rpartition(":")[2] for _, properties in integrations}
    for job in bundle.jobs:
        timeout = bundle.function(job).get("Timeout", 3)
        if job.resource_name in waited_for and timeout >= GATEWAY_WAITS:
            yield f"{job}: its timeout is {timeout} s, and the gateway waits for {GATEWAY_WAITS} s"
        variables = bundle.function(job)["Environment"]["Variables"]
        known = Settings.model_validate(
            {
                name: variables[name.upper()]
                for name in ("aws_attempts", "aws_answer_seconds")
                if name.upper() in variables
            }
        )
        patience = known.aws_attempts * (CONNECT_SECONDS + known.aws_answer_seconds) + (known.aws_attempts - 1)
        if job.resource_name in waited_for and patience >= timeout:
            yield f"{job}: waits {patience:g} s for a call of AWS, and has {timeout} s to say that it does not answer"
        if job.resource_name not in waited_for and not 60 <= timeout <= 900:
            yield f"{job}: its timeout is {timeout} s"
        is_scheduled = any(
            target["Arn"].endswith(f":{job.resource_name}")
            for _, properties in bundle.templates[job.domain].of_type("AWS::Scheduler::Schedule", "AWS::Events::Rule")
            for target in _targets(properties)
        )
        if is_scheduled and timeout < 4 * HAND_ON_BELOW.total_seconds():
            yield f"{job}: with {timeout} s it would hand on to itself before it has done anything worth it"


@rule
def functions_run_alike(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        function = bundle.function(job)
        yield from _differs(f"{job}: runtime", function.get("Runtime"), "python3.13")
        yield from _differs(f"{job}: handler", function.get("Handler"), "schoolbell.entrypoint.handler")
        yield from _differs(f"{job}: tracing", function.get("TracingConfig"), {"Mode": "Active"})
        yield from _differs(f"{job}: recursive loop", function.get("RecursiveLoop"), "Allow")
        yield from _differs(f"{job}: architecture", function.get("Architectures"), ["arm64"])
        yield from _differs(f"{job}: what it does when it rings itself", function.get("RecursiveLoop"), "Allow")
        if "VpcConfig" not in function:
            yield f"{job}: does not join the VPC that is given"


@rule
def nothing_is_lost_that_nobody_waits_for(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        retries = [
            properties
            for _, properties in bundle.templates[job.domain].of_type("AWS::Lambda::EventInvokeConfig")
            if properties["FunctionName"] == job.resource_name
        ]
        kept = [
            properties["DestinationConfig"]["OnFailure"]["Destination"].rpartition(":")[2] for properties in retries
        ]
        yield from _differs(f"{job}: where failed invocations go", kept, [f"{job.resource_name}-dlq"])


@rule
def every_delivery_is_retried_and_then_kept(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.domains.items():
        for logical_id, properties in template.of_type("AWS::Scheduler::Schedule", "AWS::Events::Rule"):
            for target in _targets(properties):
                job = target["Arn"].rpartition(":")[2]
                letters = target.get("DeadLetterConfig", {}).get("Arn", "").rpartition(":")[2]
                yield from _differs(f"{domain}: the dead letters of {logical_id}", letters, f"{job}-dlq")
                if not target.get("RetryPolicy", {}).get("MaximumRetryAttempts"):
                    yield f"{domain}: {logical_id} is not retried"
                if properties.get("EventPattern") or properties.get("ScheduleExpression", "").startswith("rate("):
                    yield from _refused(template, f"{domain}: {logical_id}", properties["Name"], letters)


@rule
def clocks_that_people_read_know_the_time_zone(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.domains.items():
        for logical_id, properties in template.of_type("AWS::Events::Rule"):
            if properties.get("ScheduleExpression", "").startswith("cron("):
                yield f"{domain}: {logical_id} is a cron rule, which knows UTC only; make it a ScheduleV2"
        for logical_id, resource in template.source["Resources"].items():
            events = resource.get("Properties", {}).get("Events", {}) if isinstance(resource, dict) else {}
            for name, event in events.items():
                if event["Type"] == "ScheduleV2":
                    zone = event["Properties"].get("ScheduleExpressionTimezone")
                    yield from _differs(f"{domain}: the zone of {logical_id}{name}", zone, {"Ref": "TimeZone"})


@rule
def schedules_tell_jobs_which_occurrence_it_is(bundle: Bundle) -> Iterator[str]:
    expected = {"scheduled_for": "<aws.scheduler.scheduled-time>"}
    for domain, template in bundle.domains.items():
        for logical_id, properties in template.of_type("AWS::Scheduler::Schedule"):
            given = json.loads(properties["Target"].get("Input", "null"))
            yield from _differs(f"{domain}: the input of {logical_id}", given, expected)
            yield from _differs(f"{domain}: the group of {logical_id}", properties.get("GroupName"), STACK)


@rule
def patterns_of_jobs_by_time_zone_ring_nobody(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        given = bundle.function(job).get("Environment", {}).get("Variables", {}).get("JOB_BY_TIME_ZONE")
        is_by_zone = "job.time_zone" in bundle.files[f"functions/{job.domain}/{job.folder}/app.py"]
        yield from _differs(f"{job}: JOB_BY_TIME_ZONE", given, "true" if is_by_zone else None)
        for logical_id, properties in bundle.templates[job.domain].of_type("AWS::Scheduler::Schedule"):
            if given and properties["Target"]["Arn"].endswith(f":{job.resource_name}"):
                yield from _differs(f"{job}: the state of {logical_id}", properties.get("State"), "DISABLED")


@rule
def every_function_has_a_log_that_ends(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        log = bundle.templates[job.domain].properties(f"{job.logical_id}Log")
        if not log.get("RetentionInDays"):
            yield f"{job}: its log is kept for ever"


# ---- permissions


@rule
def every_function_has_a_role_of_its_own(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        role = bundle.function(job).get("Role", "")
        yield from _differs(f"{job}: role", role.rpartition("/")[2], f"{job.logical_id}Role")


@rule
def roles_hold_no_policies_of_amazon(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.templates.items():
        for logical_id, role in template.of_type("AWS::IAM::Role"):
            for policy in role.get("ManagedPolicyArns", []):
                if policy != "JobPolicy":
                    yield f"{domain}: {logical_id} holds {policy}"


@rule
def permissions_have_no_wildcard_actions(bundle: Bundle) -> Iterator[str]:
    for where, statement in _permissions(bundle):
        for action in _list(statement.get("Action")):
            if "*" in action:
                yield f"{where} allows {action}"
        is_sms = (statement.get("Action"), statement.get("NotResource")) == ("sns:Publish", ANY_TOPIC)
        if "NotAction" in statement or ("NotResource" in statement and not is_sms):
            yield f"{where} allows all but something"


@rule
def permissions_name_their_resources(bundle: Bundle) -> Iterator[str]:
    for where, statement in _permissions(bundle):
        for resource in _list(statement.get("Resource", [])):
            actions = _list(statement["Action"])
            if resource == "*" and not UNNAMEABLE.issuperset(actions):
                yield f"{where} allows {', '.join(actions)} on everything"
            elif re.search(r":(\*|[^:]*[^\w/-]\*)$", resource) and ":log-group:" not in resource:
                yield f"{where} allows {', '.join(actions)} on {resource}"
            elif resource.endswith(f"{STACK}-*") and where.split(": ")[1].split(" ")[0] not in SENDS_FOR_ALL:
                yield f"{where} allows {', '.join(actions)} on the whole stack"


@rule
def roles_are_passed_to_one_service_only(bundle: Bundle) -> Iterator[str]:
    for where, statement in _permissions(bundle):
        if "iam:PassRole" in _list(statement["Action"]):
            condition = statement.get("Condition", {}).get("StringEquals", {})
            if "iam:PassedToService" not in condition:
                yield f"{where} passes a role to any service"


@rule
def other_services_act_for_this_account_only(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.templates.items():
        for logical_id, role in template.of_type("AWS::IAM::Role"):
            for statement in role["AssumeRolePolicyDocument"]["Statement"]:
                service = statement["Principal"]["Service"]
                condition = statement.get("Condition", {}).get("StringEquals", {})
                if service != "lambda.amazonaws.com" and condition.get("aws:SourceAccount") != ACCOUNT:
                    yield f"{domain}: {logical_id} may be assumed by {service} for any account"


@rule
def roles_allow_what_is_needed(bundle: Bundle) -> Iterator[str]:
    known = permissions.expected(bundle)
    yield from permissions.too_little(bundle, known)
    yield from permissions.not_trusted(bundle, known)


@rule
def roles_allow_nothing_else(bundle: Bundle) -> Iterator[str]:
    yield from permissions.too_much(bundle, permissions.expected(bundle))
    yield from permissions.not_denied(bundle)


# ---- alarms


@rule
def every_queue_alarms_when_it_falls_behind(bundle: Bundle) -> Iterator[str]:
    """Jobs with several queues have several; the queues are what counts."""
    for domain, template in bundle.domains.items():
        watched = {
            (alarm["MetricName"], dimension["Value"])
            for _, alarm in template.of_type("AWS::CloudWatch::Alarm")
            for dimension in alarm.get("Dimensions", [])
            if dimension["Name"] == "QueueName"
        }
        for logical_id, queue in template.of_type("AWS::SQS::Queue"):
            for metric in ("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"):
                if not queue["QueueName"].endswith("-dlq") and (metric, queue["QueueName"]) not in watched:
                    yield f"{domain}: nothing alarms of {metric} of {logical_id}"


@rule
def every_critical_job_alarms_when_it_fails(bundle: Bundle) -> Iterator[str]:
    for job in bundle.jobs:
        alarm = bundle.templates[job.domain].properties(f"{job.logical_id}Failed")
        variables = bundle.function(job).get("Environment", {}).get("Variables", {})
        expected = [{"Name": "service", "Value": job.name}] if variables.get("JOB_CRITICAL") == "true" else None
        yield from _differs(f"{job}: what alarms of its failures", alarm.get("Dimensions"), expected)
        if alarm:
            yield from _differs(f"{job}: its alarm without a run", alarm.get("TreatMissingData"), "ignore")


@rule
def alarms_say_what_the_router_reads(bundle: Bundle) -> Iterator[str]:
    topic = bundle.root.properties("Alerts").get("TopicName")
    for domain, template in bundle.templates.items():
        for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm"):
            if not re.fullmatch(rf"{STACK}-[a-z-]+(/[a-z.-]+)?", alarm.get("AlarmName", "")):
                yield f"{domain}: {logical_id} is called {alarm.get('AlarmName')}, not {STACK}-<kind>/<what>"
            if not re.match(rf"({'|'.join(Severity)}): \S", alarm.get("AlarmDescription", "")):
                yield f"{domain}: {logical_id} does not begin its description with how severe it is"
            for action in ("AlarmActions", "OKActions"):
                told = [arn.rpartition(":")[2] for arn in alarm.get(action, [])]
                yield from _differs(f"{domain}: {action} of {logical_id}", told, [topic])


@rule
def alarms_go_off_when_they_should(bundle: Bundle) -> Iterator[str]:
    names = set()
    for domain, template in bundle.templates.items():
        for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm"):
            name = alarm.get("AlarmName", "").removeprefix(f"{STACK}-")
            names.add(name)
            severity = alarm.get("AlarmDescription", "").partition(":")[0]
            given = (severity, alarm.get("Threshold"), alarm.get("EvaluationPeriods"))
            yield from _differs(f"{domain}: when {logical_id} goes off", given, ALARMS.get(name.partition("/")[0]))
    wanted = {"dead-letters-all-queues", *(f"circuit-open/{circuit}" for circuit in CIRCUITS)}
    for missing in sorted(wanted - names):
        yield f"there is no alarm {missing}"
    counted = bundle.templates["platform"].properties("DeadLettersMany")
    dimensions = [{"Name": "service", "Value": "platform.dead-letter-sweep"}]
    yield from _differs("what the alarm of all dead letters counts", counted.get("MetricName"), "DeadLetters")
    yield from _differs("who counts all dead letters", counted.get("Dimensions"), dimensions)


@rule
def alarms_are_of_this_stacks_metrics(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.templates.items():
        for logical_id, alarm in template.of_type("AWS::CloudWatch::Alarm"):
            metrics = [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", []) if "MetricStat" in each]
            for metric in metrics or [alarm]:
                namespace = metric.get("Namespace", "")
                if not namespace.startswith("AWS/") and namespace != Settings(schoolbell_stack=STACK).metrics_namespace:
                    yield f"{domain}: {logical_id} alarms of metrics in {namespace}, where no function writes"


@rule
def dashboards_can_be_read(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.templates.items():
        for logical_id, dashboard in template.of_type("AWS::CloudWatch::Dashboard"):
            try:
                widgets = json.loads(dashboard.get("DashboardBody", ""))["widgets"]
            except (ValueError, KeyError, TypeError) as error:
                yield f"{domain}: {logical_id} is no dashboard: {error}"
                continue
            places = [(widget["x"], widget["y"]) for widget in widgets]
            for widget in widgets:
                properties = widget["properties"]
                if places.count((widget["x"], widget["y"])) > 1 or not properties.get("title"):
                    yield f"{domain}: {logical_id} has a widget without a place or a title of its own"
                shown = properties.get("metrics") or properties.get("query")
                if STACK not in json.dumps(shown):
                    yield f"{domain}: {properties['title']} shows the metrics or logs of every stack"


@rule
def alarms_reach_their_topic(bundle: Bundle) -> Iterator[str]:
    """CloudWatch may not use the key that AWS manages for SNS: what it sends there is dropped without a word."""
    topic = bundle.root.properties("Alerts")
    if "alias/" in str(topic.get("KmsMasterKeyId", "alias/")):
        yield "the topic of the alarms has no key of its own"
    for policy in ("AlertsPolicy", "AlertsKey"):
        properties = bundle.root.properties(policy)
        document = properties.get("PolicyDocument") or properties.get("KeyPolicy") or {"Statement": []}
        services = [
            statement["Principal"].get("Service")
            for statement in document["Statement"]
            if isinstance(statement["Principal"], dict)
        ]
        if "cloudwatch.amazonaws.com" not in services:
            yield f"{policy} keeps CloudWatch out"


# ---- encryption


@rule
def data_is_encrypted(bundle: Bundle) -> Iterator[str]:
    wanted: dict[str, Callable[[dict[str, Any]], Any]] = {
        "AWS::SQS::Queue": lambda queue: queue.get("SqsManagedSseEnabled") is True or queue.get("KmsMasterKeyId"),
        "AWS::SNS::Topic": lambda topic: topic.get("KmsMasterKeyId"),
        "AWS::S3::Bucket": lambda bucket: bucket.get("BucketEncryption"),
        "AWS::DynamoDB::Table": lambda table: table.get("SSESpecification", {}).get("SSEEnabled"),
    }
    for domain, template in bundle.templates.items():
        for kind, is_encrypted in wanted.items():
            for logical_id, properties in template.of_type(kind):
                if not is_encrypted(properties):
                    yield f"{domain}: {logical_id} is not encrypted"


@rule
def data_travels_by_tls_only(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.templates.items():
        denied = {
            resource
            for _, policy in template.of_type("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy", "AWS::S3::BucketPolicy")
            for resource in _denied_without_tls(policy["PolicyDocument"])
        }
        for logical_id, resource in template.resources.items():
            properties = resource.get("Properties", {})
            match resource["Type"]:
                case "AWS::SQS::Queue":
                    is_denied = any(arn.endswith(f":{properties['QueueName']}") for arn in denied)
                case "AWS::SNS::Topic":
                    is_denied = any(arn.endswith(f":{properties['TopicName']}") for arn in denied)
                case "AWS::S3::Bucket":
                    is_denied = {f"arn:aws:s3:::{logical_id}", f"arn:aws:s3:::{logical_id}/*"} <= denied
                case "AWS::DynamoDB::Table":
                    document = properties.get("ResourcePolicy", {}).get("PolicyDocument", {"Statement": []})
                    is_denied = any(
                        arn.endswith(f"/{properties['TableName']}") for arn in _denied_without_tls(document)
                    )
                case _:
                    continue
            if not is_denied:
                yield f"{domain}: {logical_id} takes requests without TLS"


@rule
def buckets_are_private_and_stay(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.templates.items():
        for logical_id, bucket in template.of_type("AWS::S3::Bucket"):
            blocks = bucket.get("PublicAccessBlockConfiguration", {})
            if len(blocks) != 4 or not all(blocks.values()):
                yield f"{domain}: {logical_id} may be made public"
            if template.resources[logical_id].get("DeletionPolicy") != "Retain":
                yield f"{domain}: {logical_id} goes with the stack"


@rule
def the_gateway_asks_for_tokens_of_the_admin_api(bundle: Bundle) -> Iterator[str]:
    authorizers = {
        name: properties
        for name, properties in bundle.templates["platform"].of_type("AWS::ApiGatewayV2::Authorizer")
        if properties["AuthorizerType"] == "JWT" and properties["IdentitySource"] == ["$request.header.Authorization"]
    }
    routes = dict(bundle.templates["platform"].of_type("AWS::ApiGatewayV2::Route"))
    asked = [route for route in routes.values() if route["RouteKey"].split()[1].startswith("/admin/api")]
    if not asked:
        yield "there is no route to the admin API"
    for route in asked:
        if route.get("AuthorizationType") != "JWT" or route.get("AuthorizerId") not in authorizers:
            yield f"{route['RouteKey']} is open to everybody"


# ---- state machines


@rule
def state_machines_know_their_functions(bundle: Bundle) -> Iterator[str]:
    for domain, template in bundle.domains.items():
        for logical_id, machine in template.of_type("AWS::StepFunctions::StateMachine"):
            source = template.source["Resources"][logical_id]["Properties"]
            definition = bundle.files[f"functions/{domain}/{source['DefinitionUri']}"]
            given = machine.get("DefinitionSubstitutions", {})
            for name in sorted(given.keys() ^ set(re.findall(r"\$\{(\w+)\}", definition))):
                where = "for nothing" if name in given else "in its definition only"
                yield f"{domain}: {logical_id} has {name} {where}"


# ---- what the rules are made of


def _differs(what: str, given: object, expected: object) -> Iterator[str]:
    if given != expected:
        yield f"{what} is {given!r}, not {expected!r}"


def _list(value: Json) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _variables(bundle: Bundle, job: Job) -> dict[str, Json]:
    """The environment variables of a job's function."""
    given: dict[str, Json] = bundle.function(job).get("Environment", {}).get("Variables", {})
    return given


def _read_by(bundle: Bundle, job: Job) -> set[str]:
    """The settings that a job's code reads, as environment variables."""
    return {name.upper() for name in Settings.model_fields if name in bundle.reach()[job].attributes}


def _queues(bundle: Bundle) -> Iterator[tuple[Job, dict[str, Json]]]:
    for job in bundle.jobs:
        for queue in bundle.queues(job).values():
            yield job, queue


def _mapping(bundle: Bundle, job: Job, queue: str) -> dict[str, Json]:
    """The event source mapping from a job's queue to its function; empty if there is none."""
    for _, mapping in bundle.templates[job.domain].of_type("AWS::Lambda::EventSourceMapping"):
        if mapping["FunctionName"] == job.resource_name and mapping["EventSourceArn"].endswith(f":{queue}"):
            return mapping
    return {}


def _targets(properties: dict[str, Json]) -> list[dict[str, Json]]:
    """The targets of a rule, or the one of a schedule."""
    return [properties["Target"]] if "Target" in properties else list(properties.get("Targets", []))


def _declared_name(app: str) -> str | None:
    """The job's name as its module says it: the decorator's first argument, or the constant JOB."""
    for node in ast.parse(app).body:
        match node:
            case ast.FunctionDef(
                name="handler", decorator_list=[ast.Call(args=[ast.Constant(value=str(name)), *_]), *_]
            ):
                return name
            case ast.AnnAssign(target=ast.Name(id="JOB"), value=ast.Constant(value=str(name))):
                return name
            case ast.Assign(targets=[ast.Name(id="JOB")], value=ast.Constant(value=str(name))):
                return name
    return None


def _tests_of(bundle: Bundle, domain: str) -> Iterator[str]:
    return (text for path, text in bundle.files.items() if path.startswith(f"tests/integration/{domain}/test_"))


def _tests(text: str, job: Job) -> bool:
    return f"functions.{job.domain}.{job.folder}" in text


def _misfits(bundle: Bundle, job: Job, text: str) -> Iterator[str]:
    """Where an event file is not what the job's trigger sends."""
    try:
        event = json.loads(text)
    except ValueError as error:
        yield f"{job}: its event is not JSON: {error}"
        return
    if not isinstance(event, dict):
        yield f"{job}: its event is not an object"
        return
    event.pop("$comment", None)
    if queues := bundle.queues(job):
        for record in event.get("Records", [{}]):
            arn = str(record.get("eventSourceARN", ""))
            yield from _differs(f"{job}: eventSource in its event", record.get("eventSource"), "aws:sqs")
            if arn.rpartition(":")[2] not in queues:
                yield f"{job}: the queue in its event is {arn.rpartition(':')[2]}, not one of {', '.join(queues)}"
    elif event != {"dry_run": True} and (standard := list(_standard_events(bundle, job))):
        given = {name: None if name in VARYING else value for name, value in event.items()}
        if given not in standard:
            yield f"{job}: its event is not what its trigger sends, e.g. {json.dumps(standard[0])}"


def _standard_events(bundle: Bundle, job: Job) -> Iterator[dict[str, Json]]:
    """What the rules and schedules with a clock send to a job, without what varies."""
    for _, clock in bundle.templates[job.domain].of_type("AWS::Scheduler::Schedule", "AWS::Events::Rule"):
        if "ScheduleExpression" not in clock:
            continue
        for target in _targets(clock):
            if not target["Arn"].endswith(f":{job.resource_name}"):
                continue
            if "Input" in target:
                yield {name: None if name in VARYING else value for name, value in json.loads(target["Input"]).items()}
            else:
                yield {
                    "version": "0",
                    "id": None,
                    "detail-type": "Scheduled Event",
                    "source": "aws.events",
                    "account": "000000000000",
                    "time": None,
                    "region": "us-east-1",
                    "resources": [f"arn:aws:events:us-east-1:000000000000:rule/{clock['Name']}"],
                    "detail": {},
                }


def _needed(resource: Json) -> set[str]:
    """What a resource of a template as it is written waits for: what it depends on or refers to."""
    text = json.dumps(resource)
    return {*_list(resource.get("DependsOn", [])), *(match[1] for match in REFERENCE.finditer(text))}


def _functions_of(source: Json) -> Iterator[Json]:
    for resource in source["Resources"].values():
        if isinstance(resource, dict) and resource["Type"] == "AWS::Serverless::Function":
            yield resource


def _has_switch(root: Template, domain: str) -> bool:
    application, parameter = root.source["Resources"].get(domain.capitalize(), {}), f"{domain.capitalize()}Enabled"
    condition = root.source["Conditions"].get(application.get("Condition"), {})
    return parameter in root.source["Parameters"] and condition == {"Fn::Equals": [{"Ref": parameter}, "true"]}


def _refused(template: Template, where: str, name: str, queue: str) -> Iterator[str]:
    """EventBridge sends dead letters with no role: the queue itself has to let the rule."""
    for _, policy in template.of_type("AWS::SQS::QueuePolicy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Allow" and statement["Resource"].endswith(f":{queue}"):
                source = statement["Condition"]["ArnLike"]["aws:SourceArn"].rpartition("/")[2]
                if re.fullmatch(source.replace("*", ".*"), name):
                    return
    yield f"{where} may not send to {queue}"


def _permissions(bundle: Bundle) -> Iterator[tuple[str, dict[str, Json]]]:
    """What roles are allowed, with where that stands."""
    for domain, template in bundle.templates.items():
        for logical_id, properties in template.of_type("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
            if "PolicyDocument" in properties:
                documents.append(properties["PolicyDocument"])
            for document in documents:
                for statement in _list(document["Statement"]):
                    if statement["Effect"] == "Allow":
                        yield f"{domain}: {logical_id}", statement


def _denied_without_tls(document: dict[str, Json]) -> Iterator[str]:
    for statement in document["Statement"]:
        is_for_all = statement.get("Principal") in ("*", {"AWS": "*"}) and statement["Effect"] == "Deny"
        if is_for_all and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}:
            yield from _list(statement["Resource"])
