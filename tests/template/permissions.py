"""What each role needs, worked out from the code and the template, and what it is allowed.

A job's function needs what its code can ask of AWS (`tests.template.code`), and what Lambda asks on its behalf: its
log, its dead letters, its queue. A schedule's role needs to reach the schedule's target, a state machine's its steps.
What is needed is a pair of an action and the ARN of one resource, or `*` for an action without resources.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Final

from tests.template.bundle import ACCOUNT, REGION, ROOT, STACK, Bundle, Job, Json
from tests.template.code import Reach, named_in

type Needs = set[tuple[str, str]]
type Role = tuple[str, str]
"""A domain, or the root, and a logical id."""

TELEPHONES: Final = "telephones"  # have no ARN: what is no topic
POLLER: Final = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
TRACES: Final = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")
MACHINE_TRACES: Final = (*TRACES, "xray:GetSamplingRules", "xray:GetSamplingTargets")
MACHINE_LOGS: Final = (
    *("logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery"),
    *("logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
)
INTERFACES: Final = (
    *("ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
    *("ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"),
)
OF_ITS_CODE: Final = {"ArnLike": {"lambda:SourceFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-*"}}
# Actions of the code whose resources have no names.
LISTS: Final = {
    *("lambda:ListFunctions", "lambda:ListEventSourceMappings", "events:ListRules", "scheduler:ListSchedules"),
    *("sqs:ListQueues", "cloudwatch:GetMetricData"),
}
NOTIFICATIONS: Final = "platform.notifications-"
GOOGLE: Final = "schoolbell.gateways.google.credentials.OAuthTokens"
SMS: Final = "schoolbell.notifications.providers.sns."
OPERATES: Final = "schoolbell.operations.triggers."
MONITORS: Final = "schoolbell.monitoring."
SCHEDULED: Final = "schoolbell.jobs.scheduled.scheduled_job"

# By job and action, what its code could ask and never does, with the reason.
NEVER_ASKED: Final = {
    ("platform.admin", "scheduler:CreateSchedule"): "the page triggers at once only",
    ("platform.admin", "cloudformation:DescribeStacks"): "finds the role of delayed triggers",
}
# By job, the queues that its code names and never sends to, with the reason.
NEVER_SENT: Final = {
    ("tutoring.session-sweep", "tutoring.auto-complete"): "the target of a schedule that it has another job make",
    ("tutoring.message-sweep", "tutoring.scheduled-messages"): "the target of a schedule that it has another job make",
}
SENDS_ALL: Final = "platform.outbox-relay"  # what any job has left in the outbox
STARTS_ALL: Final = ("platform.run-watchdog",)  # whatever was missed


@dataclass(frozen=True)
class Grant:
    """One action on one resource that a statement allows."""

    policy: str
    """Where it stands, e.g. `tutoring: GoogleAccess`."""
    action: str
    resource: str

    def covers(self, action: str, resource: str) -> bool:
        """Whether this is enough for that."""
        return self.action == action and (self.resource == resource or fnmatchcase(resource, self.resource))


@dataclass(frozen=True)
class Expected:
    """What the roles are to be allowed, each by domain and logical id."""

    needs: dict[Role, Needs]
    own: dict[Role, Needs]
    """What a job's role names by itself, even if it may send to or invoke whatever there is."""


def expected(bundle: Bundle) -> Expected:
    """Works out from code and template what each role needs; its policies have no part in that."""
    known = _Known(bundle.templates, bundle.files, bundle.reach())
    return Expected(_needed(known), {_role(job): _of_any(known, job) for job in bundle.jobs})


def too_little(bundle: Bundle, known: Expected) -> Iterator[str]:
    """What roles need and are not allowed."""
    for role, needs in known.needs.items():
        grants = granted(bundle, *role)
        for action, resource in sorted(needs):
            if not any(grant.covers(action, resource) for grant in grants):
                yield f"{role[0]}: {role[1]} needs {action} on {resource}, which nothing allows"
    for role, needs in known.own.items():
        named = {(grant.action, grant.resource) for grant in granted(bundle, *role)}
        for action, resource in sorted(needs - named):
            yield f"{role[0]}: {role[1]} does not name {resource} for {action}"


def not_trusted(bundle: Bundle, known: Expected) -> Iterator[str]:
    """Roles that the service which uses them may not assume."""
    functions = known.own.keys()
    machines = {
        (domain, _name(machine["RoleArn"]))
        for domain, template in bundle.domains.items()
        for _, machine in template.of_type("AWS::StepFunctions::StateMachine")
    }
    for role in known.needs:
        service = "lambda" if role in functions else "states" if role in machines else "scheduler"
        document = bundle.templates[role[0]].properties(role[1]).get("AssumeRolePolicyDocument", {"Statement": []})
        trusted = [statement["Principal"]["Service"] for statement in document["Statement"]]
        if trusted != [f"{service}.amazonaws.com"]:
            yield f"{role[0]}: {role[1]} trusts {trusted}, and is {service}'s"


def not_denied(bundle: Bundle) -> Iterator[str]:
    """What Lambda needs for a VPC, and the code of a function does not."""
    statements = bundle.root.properties("JobPolicy")["PolicyDocument"]["Statement"]
    for statement in statements:
        left_to_lambda = statement | {"Sid": "LeaveVpcToLambda", "Effect": "Deny", "Condition": OF_ITS_CODE}
        if (
            statement["Effect"] == "Allow"
            and statement["Action"] == list(INTERFACES)
            and left_to_lambda not in statements
        ):
            yield f"{ROOT}: JobPolicy lets the functions' own code change network interfaces"


def too_much(bundle: Bundle, known: Expected) -> Iterator[str]:
    """What roles are allowed and don't need; of what all jobs hold, what none of them needs."""
    everybody = set[tuple[str, str]]().union(*known.needs.values())
    for domain, template in bundle.templates.items():
        for role, _ in template.of_type("AWS::IAM::Role"):
            own = known.needs.get((domain, role), set())
            for grant in granted(bundle, domain, role):
                needs = everybody if grant.policy == f"{ROOT}: JobPolicy" else own
                if not any(grant.covers(*need) for need in needs):
                    yield f"{grant.policy}: {role} does not need {grant.action} on {grant.resource}"


def granted(bundle: Bundle, domain: str, role: str) -> list[Grant]:
    """What a role is allowed."""
    template = bundle.templates[domain]
    properties = template.properties(role)
    documents = [(f"{domain}: {role}", policy["PolicyDocument"]) for policy in properties.get("Policies", [])]
    for name, policy in template.of_type("AWS::IAM::Policy"):
        if role in policy["Roles"]:
            documents.append((f"{domain}: {name}", policy["PolicyDocument"]))
    for name in properties.get("ManagedPolicyArns", []):
        documents.append((f"{ROOT}: {name}", bundle.root.properties(name)["PolicyDocument"]))
    return [
        Grant(policy, action, f"{resource}{_through(statement)}")
        for policy, document in documents
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in _list(statement["Action"])
        for resource in _list(statement.get("Resource", TELEPHONES))
    ]


def _through(statement: Json) -> str:
    """The service through which alone a key may be used, as it stands behind the key's ARN here: ` by sns`."""
    service = statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", "")
    return f" by {service.partition('.')[0]}" if service else ""


@dataclass(frozen=True)
class _Known(Bundle):
    """A bundle whose code has been read."""

    reached: dict[Job, Reach]


def _needed(bundle: _Known) -> dict[Role, Needs]:
    needs: dict[Role, Needs] = {_role(job): _of_job(bundle, job) for job in bundle.jobs}
    for domain, template in bundle.domains.items():
        for _, schedule in template.of_type("AWS::Scheduler::Schedule"):
            target = schedule["Target"]
            role = needs.setdefault((domain, _name(target["RoleArn"])), set())
            role.add(("lambda:InvokeFunction", target["Arn"]))
            role.add(("sqs:SendMessage", target["DeadLetterConfig"]["Arn"]))
        for _, machine in template.of_type("AWS::StepFunctions::StateMachine"):
            role = needs.setdefault((domain, _name(machine["RoleArn"])), set())
            role |= {("lambda:InvokeFunction", arn) for arn in machine.get("DefinitionSubstitutions", {}).values()}
            role |= {
                (action, "*") for action in MACHINE_TRACES if machine.get("TracingConfiguration", {}).get("Enabled")
            }
            role |= {(action, "*") for action in MACHINE_LOGS if machine.get("LoggingConfiguration")}
    for job in bundle.jobs:
        if _makes_one_time_schedules(bundle, job):
            role = needs.setdefault((job.domain, _name(_variables(bundle, job)["SCHEDULER_ROLE_ARN"])), set())
            for keyword, name in bundle.reached[job].given:
                if keyword == "job" and name in _queues(bundle):
                    role |= {("sqs:SendMessage", _queue(name)), ("sqs:SendMessage", f"{_queue(name)}-dlq")}
    needs[ROOT, "DelayedTriggerRole"] = {
        *(("lambda:InvokeFunction", _function(job.name)) for job in bundle.jobs),
        *(("sqs:SendMessage", arn) for arn in _all_queues(bundle)),
    }
    return needs


def _of_job(bundle: _Known, job: Job) -> Needs:
    reach, function = bundle.reached[job], bundle.function(job)
    log = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{job.resource_name}:*"
    needs: Needs = {("logs:CreateLogStream", log), ("logs:PutLogEvents", log)} | _of_any(bundle, job)
    for queue in bundle.queues(job):
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"
        needs |= {(f"sqs:{action}", arn) for action in (*POLLER, "ChangeMessageVisibility", "SendMessage")}
        needs.add(("sqs:SendMessage", f"{arn}-dlq"))
    if function.get("TracingConfig"):
        needs |= {(action, "*") for action in TRACES}
    if function.get("VpcConfig"):
        needs |= {(action, "*") for action in INTERFACES}
    for action in reach.actions:
        if (job.name, action) not in NEVER_ASKED:
            needs |= {(action, resource) for resource in _resources(bundle, job, action)}
    if any(action == "sns:Publish" and resource == _topic("alerts") for action, resource in needs):
        needs |= {(f"kms:{action}", "AlertsKey.Arn by sns") for action in ("Decrypt", "GenerateDataKey")}
    if any(action == "secretsmanager:GetSecretValue" for action, _ in needs):
        needs.add(("kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1 by secretsmanager"))
    if any(action == "s3:GetObject" for action, _ in needs):
        needs.add(("s3:ListBucket", "arn:aws:s3:::ArchiveBucket"))  # else S3 says "denied" of what is not there
    passed = {action for action, _ in needs} & {"scheduler:CreateSchedule", "scheduler:UpdateSchedule"}
    if passed:
        needs |= {("iam:PassRole", arn) for arn in _passed_roles(bundle, job)}
    return needs


def _role(job: Job) -> Role:
    return job.domain, f"{job.logical_id}Role"


def _of_any(bundle: _Known, job: Job) -> Needs:
    needs: Needs = {("sqs:SendMessage", f"{_queue(job.name)}-dlq")}  # failed invocations
    if _uses(bundle.reached[job], SCHEDULED):
        needs.add(("lambda:InvokeFunction", _function(job.name)))  # it hands the rest on to itself
    return needs


def _resources(bundle: _Known, job: Job, action: str) -> Iterable[str]:
    """The resources on which a job's code takes an action that it can reach."""
    reach = bundle.reached[job]
    operates = _uses(reach, OPERATES)
    match action.partition(":"):
        case _ if action in LISTS:
            return ["*"]
        case _, _, "InvokeFunction":
            everything = job.name in (SENDS_ALL, *STARTS_ALL) or operates
            return [_function(each.name) for each in bundle.jobs] if everything else []
        case _, _, "SendMessage":
            return _all_queues(bundle) if job.name == SENDS_ALL or operates else _destinations(bundle, job)
        case "sqs", _, "ChangeMessageVisibility" if bundle.queues(job):
            return []  # its own queues'
        case "sqs", _, "GetQueueAttributes" if operates or _uses(reach, MONITORS):
            return _all_queues(bundle)
        case "sqs", _, _:
            return [arn for arn in _all_queues(bundle) if arn.endswith("-dlq")]
        case "sns", _, _:
            topics = _topics(bundle) if job.name == SENDS_ALL else [_topic("alerts")]
            return [
                *topics,
                *([TELEPHONES] if _uses(reach, SMS) else []),
            ]
        case "secretsmanager", _, _:
            return _secrets(bundle, job)
        case "dynamodb", _, _:
            return [f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{STACK}-resilience"]
        case "kms", _, "Decrypt" if _uses(reach, GOOGLE):
            return ["AlertsKey.Arn"]  # what teachers granted is encrypted with it
        case "s3", _, _:
            return ["arn:aws:s3:::ArchiveBucket/audit/2026/03.jsonl.gz"]
        case "ses", _, _:
            return [
                f"arn:aws:ses:{REGION}:{ACCOUNT}:identity/{each}" for each in ("no-reply@example.com", "example.com")
            ]
        case "states", _, "StartExecution":
            return [_machine(name) for name in named_in(reach.texts, _machines(bundle, job.domain))]
        case "states", _, _:
            return [_machine(name) for name in _machines(bundle, job.domain)]
        case "scheduler", _, _:
            return _schedules(bundle, job)
        case "events", _, _:
            return [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}" for name in _rules(bundle)]
        case "logs", _, _:
            return [
                f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{each.resource_name}" for each in bundle.jobs
            ]
    return [f"(what {job} does with {action} is not known to {__name__})"]


def _destinations(bundle: _Known, job: Job) -> list[str]:
    """The queues that a job's code names, or begins to name."""
    reach, queues = bundle.reached[job], _queues(bundle)
    named = named_in(reach.texts, queues)
    if NOTIFICATIONS in reach.texts:
        named |= {queue for queue in queues if queue.startswith(NOTIFICATIONS)}
    return [_queue(name) for name in named if (job.name, name) not in NEVER_SENT]


def _secrets(bundle: _Known, job: Job) -> list[str]:
    reach = bundle.reached[job]
    secrets = [f"{STACK}/providers/{name}-a1b2c3" for method, name in reach.given if method == "provider_secret"]
    if "monitoring_secret_id" in reach.attributes:
        secrets.append(f"{STACK}-platform-monitoring-token-a1b2c3")
    if _uses(reach, GOOGLE):
        secrets.append(f"{STACK}/google/teacher-a1b2c3")
    if "database_secret_id" in reach.attributes:
        secrets.append("database-a1b2c3")
    return [f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}" for name in secrets]


def _schedules(bundle: _Known, job: Job) -> list[str]:
    """One-time schedules by how their names begin, or else those of the templates."""
    reach = bundle.reached[job]
    if _makes_one_time_schedules(bundle, job):
        keys = [key for keyword, key in reach.given if keyword == "key" and key.endswith("_id")]
        names = [f"{key.removesuffix('_id')}-1" for key in keys]  # named after the row, whose id the payload has
    else:
        names = [
            schedule["Name"]
            for template in bundle.domains.values()
            for _, schedule in template.of_type("AWS::Scheduler::Schedule")
        ]
    return [f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/{STACK}/{name}" for name in names]


def _passed_roles(bundle: _Known, job: Job) -> set[str]:
    """The roles that a job gives to schedules; those of templates have names that CloudFormation makes."""
    if _makes_one_time_schedules(bundle, job):
        return {_variables(bundle, job)["SCHEDULER_ROLE_ARN"]}
    return {
        f"arn:aws:iam::{ACCOUNT}:role/{STACK}-{domain.capitalize()}-1ABC-{_name(schedule['Target']['RoleArn'])}-2DEF"
        for domain, template in bundle.domains.items()
        for _, schedule in template.of_type("AWS::Scheduler::Schedule")
    }


def _makes_one_time_schedules(bundle: _Known, job: Job) -> bool:
    """Those that jobs make have a role that the template names; those by time zone have that of their pattern."""
    return "scheduler:CreateSchedule" in bundle.reached[job].actions and "SCHEDULER_ROLE_ARN" in _variables(bundle, job)


def _uses(reach: Reach, what: str) -> bool:
    """Whether a definition is reached, or anything in a module whose name ends with a dot here."""
    return any(name.startswith(what) for name in reach.names)


def _variables(bundle: Bundle, job: Job) -> dict[str, Json]:
    given: dict[str, Json] = bundle.function(job).get("Environment", {}).get("Variables", {})
    return given


def _machines(bundle: Bundle, domain: str) -> list[str]:
    machines = bundle.templates[domain].of_type("AWS::StepFunctions::StateMachine")
    return [_job_name(machine["StateMachineName"]) for _, machine in machines]


def _rules(bundle: Bundle) -> list[str]:
    """The rules with a schedule: those that operators change."""
    rules = (rule for template in bundle.domains.values() for _, rule in template.of_type("AWS::Events::Rule"))
    return [rule["Name"] for rule in rules if "ScheduleExpression" in rule]


def _all_queues(bundle: Bundle) -> list[str]:
    queues = (queue for template in bundle.domains.values() for _, queue in template.of_type("AWS::SQS::Queue"))
    return [f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue['QueueName']}" for queue in queues]


def _topics(bundle: Bundle) -> list[str]:
    return [
        _topic(topic["TopicName"].removeprefix(f"{STACK}-"))
        for template in bundle.templates.values()
        for _, topic in template.of_type("AWS::SNS::Topic")
    ]


def _queues(bundle: Bundle) -> set[str]:
    """The queues as jobs name them, without those of dead letters."""
    names = {_job_name(arn.rpartition(":")[2]) for arn in _all_queues(bundle)}
    return {name for name in names if not name.endswith("-dlq")}


@cache
def _job_name(resource: str) -> str:
    """`tutoring.drive-copy` for `schoolbell-tutoring-drive-copy`."""
    return resource.removeprefix(f"{STACK}-").replace("-", ".", 1)


def _resource(job: str) -> str:
    return f"{STACK}-{job.replace('.', '-')}"


def _queue(job: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{_resource(job)}"


def _function(job: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{_resource(job)}"


def _machine(name: str) -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{_resource(name)}"


def _topic(name: str) -> str:
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{STACK}-{name}"


def _name(arn: str) -> str:
    return arn.rpartition("/")[2]


def _list(value: Json) -> list[str]:
    return list(value) if isinstance(value, list) else [value]
