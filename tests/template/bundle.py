"""The bundle as the rules look at it: the templates as plain CloudFormation with all values filled in, and the files.

What is filled in is what a deployment of the stack `schoolbell` would have: the root template's parameters have their
defaults, or else the values below, and a domain's parameters have what the root template gives it.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from samtranslator.yaml_helper import yaml_parse

from local.bundle import logical_id
from local.expansion import expand_template
from local.home import CHECKOUT
from local.loops import LOOP
from tests.template.code import Reach, reach

type Json = Any
type Resources = dict[str, dict[str, Json]]

ROOT: Final = "root"
PARTS: Final = ("template.yaml", "functions", "shared", "events", "tests/integration", "samconfig.toml")
CODE: Final = ("functions/", "shared/")
STACK: Final = "schoolbell"
REGION: Final = "eu-central-1"
ACCOUNT: Final = "111122223333"

PSEUDO: Final = {
    "AWS::StackName": STACK,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/1",
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::URLSuffix": "amazonaws.com",
}
# With a VPC, a key of the secrets and a job whose runs are told, so that the rules see what these bring with them.
GIVEN: Final[dict[str, Json]] = {
    "DatabaseSecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:database-a1b2c3",
    "SecretsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1",
    "VpcSubnetIds": "subnet-1,subnet-2",
    "VpcSecurityGroupIds": "sg-1",
    "SlackRuns": "tutoring.data-retention",
}

# By type: which property is a resource's name, and its ARN and `Ref` if they are not the name.
NAMED: Final[dict[str, tuple[str, str, str]]] = {
    "AWS::SQS::Queue": (
        "QueueName",
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}",
        f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{{}}",
    ),
    "AWS::Lambda::Function": ("FunctionName", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{}}", "{}"),
    "AWS::Logs::LogGroup": ("LogGroupName", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*", "{}"),
    "AWS::SNS::Topic": ("TopicName", "", f"arn:aws:sns:{REGION}:{ACCOUNT}:{{}}"),
    "AWS::DynamoDB::Table": ("TableName", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{}}", "{}"),
    "AWS::Scheduler::ScheduleGroup": ("Name", "", "{}"),
    "AWS::StepFunctions::StateMachine": (
        "StateMachineName",
        "",
        f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{{}}",
    ),
}
_UNNAMED_ARNS: Final = {
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{id}",
    "AWS::S3::Bucket": "arn:aws:s3:::{id}",
}
NOTHING: Final = object()


@dataclass(frozen=True)
class Template:
    """A template: as it is written, and as CloudFormation makes it."""

    source: dict[str, Json]
    """As written; loops are loops, short functions are long ones."""
    resources: Resources
    """Loops and SAM written out, values filled in, conditions applied."""

    def of_type(self, *types: str) -> Iterator[tuple[str, dict[str, Json]]]:
        """Logical ids and properties of the resources of these types."""
        for name, resource in self.resources.items():
            if resource["Type"] in types:
                yield name, resource.get("Properties", {})

    def properties(self, name: str) -> dict[str, Json]:
        """A resource's properties; empty if there is no such resource."""
        properties: dict[str, Json] = self.resources.get(name, {}).get("Properties", {})
        return properties


@dataclass(frozen=True)
class Job:
    """A job by the one rule for names, made from its folder."""

    domain: str
    folder: str

    @property
    def name(self) -> str:
        """As in `tutoring.calendar-sync`."""
        return f"{self.domain}.{self.folder.replace('_', '-')}"

    @property
    def resource_name(self) -> str:
        """The name of its function, queue and schedule."""
        return f"{STACK}-{self.domain}-{self.folder.replace('_', '-')}"

    @property
    def logical_id(self) -> str:
        """As in `CalendarSync`."""
        return logical_id(self.folder)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Bundle:
    """Templates by domain (the root one as `root`), and the text of all files by path."""

    templates: dict[str, Template]
    files: dict[str, str]

    @property
    def root(self) -> Template:
        """The root template."""
        return self.templates[ROOT]

    @property
    def domains(self) -> dict[str, Template]:
        """The domains' templates."""
        return {name: template for name, template in self.templates.items() if name != ROOT}

    @property
    def jobs(self) -> list[Job]:
        """The jobs, as the folders with an `app.py` say."""
        paths = (PurePosixPath(path).parts for path in self.files)
        return [Job(parts[1], parts[2]) for parts in paths if parts[0] == "functions" and parts[3:] == ("app.py",)]

    def function(self, job: Job) -> dict[str, Json]:
        """The properties of a job's function."""
        return self.templates[job.domain].properties(job.logical_id)

    def queue(self, job: Job) -> dict[str, Json] | None:
        """The properties of a job's queue, if it has one."""
        return self.templates[job.domain].properties(f"{job.logical_id}Queue") or None

    def queues(self, job: Job) -> dict[str, dict[str, Json]]:
        """The properties of the queues that ring a job, by name: its own, and those that it shares a function with."""
        template = self.templates[job.domain]
        sources = {
            mapping["EventSourceArn"].rpartition(":")[2]
            for _, mapping in template.of_type("AWS::Lambda::EventSourceMapping")
            if mapping["FunctionName"] == job.resource_name
        }
        found = {queue["QueueName"]: queue for _, queue in template.of_type("AWS::SQS::Queue")}
        own = [own] if (own := self.queue(job)) else []
        return {queue["QueueName"]: queue for queue in (*own, *(found[name] for name in sorted(sources)))}

    def reach(self) -> dict[Job, Reach]:
        """What each job's code can reach."""
        code = frozenset((path, text) for path, text in self.files.items() if path.startswith(CODE))
        return {job: reach(code, f"functions/{job.domain}/{job.folder}/app.py") for job in self.jobs}

    def copy(self) -> "Bundle":
        """A copy that can be broken."""
        return deepcopy(self)


@cache
def bundle() -> Bundle:
    """The bundle of this checkout."""
    return read_bundle(CHECKOUT)


def read_bundle(checkout: Path) -> Bundle:
    """The bundle of a checkout, or of a copy of what it is made of (`PARTS`)."""
    root = _template(checkout / "template.yaml", GIVEN)
    templates = {ROOT: root}
    for path in sorted(checkout.glob("functions/*/template.yaml")):
        domain = path.parent.name
        templates[domain] = _template(path, root.properties(domain.capitalize()).get("Parameters", {}))
    return Bundle(templates, _files(checkout))


def stack_name() -> dict[str, Json]:
    """The parameter by which CloudFormation checks a stack's name."""
    checked: dict[str, Json] = yaml_parse((CHECKOUT / "functions" / "stack-name.yaml").read_text())
    return dict(checked["Parameters"]["Stack"])


def loops(source: Mapping[str, Json]) -> dict[str, Json]:
    """The `Fn::ForEach` loops of a template by name."""
    return {name.removeprefix(LOOP): loop for name, loop in source["Resources"].items() if name.startswith(LOOP)}


def _template(path: Path, given: Mapping[str, Json]) -> Template:
    plain = expand_template(path)
    values = _Values(plain, given)
    resources = {
        name: values.of({key: value for key, value in resource.items() if key != "Condition"})
        for name, resource in plain["Resources"].items()
        if values.holds(resource.get("Condition"))
    }
    return Template(yaml_parse(path.read_text()), resources)


def _files(checkout: Path) -> dict[str, str]:
    patterns = (
        "functions/**/*",
        "shared/**/*.py",
        "shared/**/*.sql",
        "events/**/*.json",
        "tests/**/test_*.py",
        "samconfig.toml",
    )
    paths = (path for pattern in patterns for path in checkout.glob(pattern))
    return {
        path.relative_to(checkout).as_posix(): path.read_text()
        for path in sorted(paths)
        if path.is_file()
        and path.suffix in (".py", ".sql", ".json", ".yaml", ".toml")
        and "__pycache__" not in path.parts
    }


class _Values:
    """Computes CloudFormation's functions, as far as the templates use them."""

    def __init__(self, template: Mapping[str, Json], given: Mapping[str, Json]) -> None:
        self._resources: Mapping[str, Json] = template["Resources"]
        self._mappings: Mapping[str, Json] = template.get("Mappings", {})
        self._conditions: Mapping[str, Json] = template.get("Conditions", {})
        self._parameters: dict[str, Json] = dict(PSEUDO)
        for name, declared in template.get("Parameters", {}).items():
            value = given.get(name, declared.get("Default", f"({name})"))
            is_list = declared["Type"] == "CommaDelimitedList"
            self._parameters[name] = value.split(",") if is_list and isinstance(value, str) else value

    def holds(self, condition: str | None) -> bool:
        return condition is None or bool(self.of(self._conditions[condition]))

    def of(self, node: Json) -> Json:
        if isinstance(node, list):
            return [value for child in node if (value := self.of(child)) is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, argument),) = node.items()
            if function in ("Ref", "Condition") or function.startswith("Fn::"):
                return self._call(function, argument)
        return {key: value for key, child in node.items() if (value := self.of(child)) is not NOTHING}

    def _call(self, function: str, argument: Json) -> Json:
        match function:
            case "Ref":
                return self._ref(argument)
            case "Fn::GetAtt":
                name, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
                return self._attribute(name, attribute)
            case "Fn::Sub":
                text, variables = argument if isinstance(argument, list) else (argument, {})
                return self._substituted(text, self.of(variables))
            case "Fn::FindInMap":
                table, first, second = self.of(argument)
                return self._mappings[table][first][second]
            case "Fn::If":
                condition, then, otherwise = argument
                return self.of(then if self.holds(condition) else otherwise)
            case "Condition":
                return self.holds(argument)
            case "Fn::Equals":
                one, other = self.of(argument)
                return one == other
            case "Fn::Not":
                return not self.of(argument)[0]
            case "Fn::Join":
                glue, parts = argument
                return glue.join(self.of(parts))
            case "Fn::Select":
                index, parts = argument
                return self.of(parts)[int(index)]
            case "Fn::Split":
                glue, whole = argument
                return self.of(whole).split(glue)
        raise ValueError(f"a function that the tests don't know: {function}")

    def _ref(self, name: str) -> Json:
        if name == "AWS::NoValue":
            return NOTHING
        if name in self._parameters:
            return self._parameters[name]
        named = NAMED.get(self._resources[name]["Type"])
        return named[2].format(self._physical_name(name, named[0])) if named else name

    def _attribute(self, name: str, attribute: str) -> str:
        kind = self._resources[name]["Type"]
        named = NAMED.get(kind)
        if named and attribute == "Arn":
            return named[1].format(self._physical_name(name, named[0]))
        if kind in _UNNAMED_ARNS and attribute == "Arn":
            return _UNNAMED_ARNS[kind].format(account=ACCOUNT, id=name)
        return f"{name}.{attribute}"

    def _physical_name(self, name: str, key: str) -> Json:
        return self.of(self._resources[name]["Properties"].get(key, name))

    def _substituted(self, text: str, variables: Mapping[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in variables:
                return variables[name]
            if "." in name:
                return self._attribute(*name.split(".", 1))
            return str(self._ref(name))

        return re.sub(r"\$\{([^!}]+)\}", value, text)
