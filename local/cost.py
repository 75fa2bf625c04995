"""What a month on AWS costs, worked out from the templates: ``python -m local.cost``.

The templates say what there is: functions and their memory, queues, schedules, alarms, secrets. What happens is a model
of a tutoring business (`MESSAGES`, `SECONDS`), in which a teacher has 14 students and gives 60 lessons a month. What a
unit costs is `PRICES`. Free allowances are left out, since other things in the account may use them; PostgreSQL, the
network (a NAT gateway costs more than all of this) and Google are not Schoolbell's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from local.expansion import expand_template
from local.home import CHECKOUT
from schoolbell.operations import expressions

TEACHERS: Final = (100, 1_000, 10_000)
PAGE: Final = CHECKOUT / "docs" / "cost.md"

BEGIN: Final = datetime(2026, 6, 1, tzinfo=UTC)
END: Final = datetime(2026, 7, 1, tzinfo=UTC)
"""A month of thirty days."""
SECONDS_A_MONTH: Final = 30 * 86_400
HOURS_A_MONTH: Final = 30 * 24

PRICES: Final[Mapping[str, float]] = {
    "Lambda requests": 0.20e-6,
    "Lambda GB-seconds": 13.3334e-6,
    "SQS, of messages": 0.40e-6,
    "SQS, of idle pollers": 0.40e-6,
    "Schedules going off": 1.00e-6,
    "State transitions": 25.0e-6,
    "DynamoDB writes": 0.625e-6,
    "DynamoDB reads": 0.125e-6,
    "Logs, GB": 0.50,
    "Metrics": 0.30,
    "Metrics watched by alarms": 0.10,
    "Dashboards": 3.00,
    "Secrets": 0.40,
    "Secret reads": 0.05e-4,
    "Keys": 1.00,
    "Key requests": 0.03e-4,
    "Traces": 5.00e-6,
    "API requests": 1.00e-6,
    "Archive, GB": 0.004,
    "Operators who sign in": 0.015,
    "E-mails by SES": 0.10e-3,
}
"""US dollars a unit, us-east-1, on demand, as AWS listed them in 2026; functions are arm64."""

MESSAGES: Final[Mapping[str, float]] = {
    "tutoring.session-events": 72,  # a lesson is scheduled, and one in five is moved or cancelled
    "tutoring.auto-complete": 60,
    "tutoring.drive-copy": 10,
    "tutoring.drive-verify": 30,  # one a day
    "tutoring.waitlist-answers": 4,
    "platform.notifications-high": 0.06,  # an offer of a seat; up to a hundred notifications a message
    "platform.notifications-normal": 0.12,
    "platform.notifications-low": 0.05,
    "platform.alert-router": 0.02,  # what is wrong, and that it is over
}
"""Messages a teacher and month, by queue, where it matters; `FEW` for all others."""
FEW: Final = 2

SES: Final = "E-mails by SES"
WITHOUT_EMAILS: Final = "All of it without e-mails"

ONE_SHOTS: Final = 62  # a teacher's lessons and planned messages
EMAILS: Final = 20
OFFERS: Final = 6
TRANSITIONS_AN_OFFER: Final = 5

ON_THE_HOUR: Final = 360
"""Instants a month at which lessons end; their messages come together and are worked off in large batches."""

POLLERS: Final = 5
"""Lambda's pollers of an idle queue, each of which asks for messages all the time, twenty seconds at a time."""
POLL: Final = 20

SECONDS: Final[Mapping[str, tuple[float, float]]] = {
    "tutoring.auto-complete": (0.05, 0.0001),
    "tutoring.session-events": (0.05, 0.02),
    "tutoring.message-events": (0.05, 0.02),
    "tutoring.drive-copy": (0.1, 2.0),
    "tutoring.drive-verify": (0.1, 1.0),
    "platform.notification-delivery": (0.1, 0.7),
}
"""Seconds of an invocation, and of each of its messages; `TYPICAL` for all others."""
TYPICAL: Final = (0.1, 0.01)

SECONDS_A_TEACHER: Final = 0.0002
"""Of a scheduled job that goes over all students: 1.5 seconds for 100,000 of them."""

LOG_BYTES_AN_INVOCATION: Final = 2_000
WRITES_A_CALL: Final = 4
"""The limiter counts a call for its tenant and for all, in one transaction, which is billed twice over."""
READS_A_CALL: Final = 2
"""The circuit's state, and the limiter's where a batch looks ahead; eventually consistent reads are half a unit."""

COLD_STARTS: Final = 0.02
"""Of all invocations; each reads the database's secret, and some another one."""
SECRETS_A_START: Final = 1.5
SYNCS: Final = 72
"""Changes of a teacher's calendar, each of which has the token decrypted where an environment does not know it yet."""
TRACED_AT_ONCE: Final = 1.0
"""Lambda samples the first invocation of each second, and one in twenty of the others."""
SCRAPE: Final = 15
"""Seconds between two looks of Prometheus at the metrics."""
OPERATORS: Final = 5
AUDIT_GIGABYTES: Final = 0.002
"""Compressed, that a teacher's audit records of seven years come to."""
CIRCUIT_HOURS: Final = 2
"""Hours of a month in which a circuit opens or closes, which is when its metric has values."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the templates."""

    job: str
    gigabytes: float
    runs: int
    """By the clock, in a month."""
    queues: tuple[tuple[str, int], ...]
    """What it is fed by: the queue, and how many messages a batch may have."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the templates say there is."""

    functions: tuple[Function, ...]
    watched: int
    """Metrics that alarms look at."""
    keys: int
    critical: tuple[str, ...]
    """The jobs whose failures are counted for an alarm."""
    circuits: int
    """The circuits whose state is a metric."""
    dashboards: int
    secrets: int


def read_bundle() -> Bundle:
    """Reads the templates."""
    functions: list[Function] = []
    watched = dashboards = secrets = keys = circuits = 0
    critical: list[str] = []
    for path in [CHECKOUT / "template.yaml", *sorted(CHECKOUT.glob("functions/*/template.yaml"))]:
        template = expand_template(path)
        resources = template["Resources"]
        functions += _functions(path.parent.name, template)
        for resource in resources.values():
            match resource["Type"]:
                case "AWS::CloudWatch::Alarm":
                    watched += _metrics_of(resource["Properties"])
                    circuits += "CircuitBroken" in str(resource)
                case "AWS::KMS::Key":
                    keys += 1
                case "AWS::CloudWatch::Dashboard":
                    dashboards += 1
                case "AWS::SecretsManager::Secret":
                    secrets += 1
        critical += _critical(path.parent.name, template)
    return Bundle(tuple(functions), watched, keys, tuple(critical), circuits, dashboards, secrets)


def _critical(domain: str, template: Mapping[str, Any]) -> Iterator[str]:
    for resource in template["Resources"].values():
        variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
        if resource["Type"] == "AWS::Lambda::Function" and variables.get("JOB_CRITICAL") == "true":
            yield _job(domain, resource)


def _job(domain: str, function: Mapping[str, Any]) -> str:
    name = function["Properties"]["FunctionName"]["Fn::Sub"].removeprefix(f"${{Stack}}-{domain}-")
    return f"{domain}.{name}"


def _functions(domain: str, template: Mapping[str, Any]) -> Iterator[Function]:
    resources = template["Resources"]
    for logical_id, resource in resources.items():
        if resource["Type"] != "AWS::Lambda::Function":
            continue
        yield Function(
            job=_job(domain, resource),
            gigabytes=resource["Properties"]["MemorySize"] / 1024,
            runs=sum(_runs(each["Properties"], logical_id) for each in resources.values() if "Properties" in each),
            queues=tuple(_queues(domain, template, logical_id)),
        )


def _runs(clock: Mapping[str, Any], function: str) -> int:
    """How often a rule or schedule rings a function in a month."""
    expression = clock.get("ScheduleExpression")
    targets = [*clock.get("Targets", ()), clock.get("Target") or {}]
    if not expression or not any(_refers(target.get("Arn"), function) for target in targets):
        return 0
    return len(expressions.parse(expression, "UTC").between(BEGIN, END))


def _queues(domain: str, template: Mapping[str, Any], function: str) -> Iterator[tuple[str, int]]:
    resources = template["Resources"]
    for resource in resources.values():
        properties = resource.get("Properties", {})
        if resource["Type"] != "AWS::Lambda::EventSourceMapping" or not _refers(properties["FunctionName"], function):
            continue
        queue = resources[properties["EventSourceArn"]["Fn::GetAtt"][0]]["Properties"]["QueueName"]
        yield f"{domain}.{_name(queue, domain, template['Mappings'])}", properties["BatchSize"]


def _name(queue: Mapping[str, Any], domain: str, mappings: Mapping[str, Any]) -> str:
    """A queue's name without the stack's and the domain's."""
    named = queue["Fn::Sub"]
    text, variables = named if isinstance(named, list) else (named, {})
    for variable, reference in {"Stack": "", "Domain": domain, **variables}.items():
        if isinstance(reference, Mapping):
            mapping, key, attribute = reference["Fn::FindInMap"]
            text = text.replace(f"${{{variable}}}", mappings[mapping][key][attribute])
        else:
            text = text.replace(f"${{{variable}}}", reference)
    return str(text).removeprefix(f"-{domain}-")


def _refers(reference: Any, logical_id: str) -> bool:
    if not isinstance(reference, Mapping):
        return False
    return reference.get("Ref") == logical_id or (reference.get("Fn::GetAtt") or [None])[0] == logical_id


def _metrics_of(alarm: Mapping[str, Any]) -> int:
    queries = [query for query in alarm.get("Metrics", ()) if "MetricStat" in query]
    return len(queries) or 1


def units(bundle: Bundle, teachers: int) -> dict[str, float]:
    """What so many teachers take in a month, by the names of `PRICES`."""
    invocations: dict[str, float] = {}
    gigabyte_seconds = messages = 0.0
    for function in bundle.functions:
        base, each = SECONDS.get(function.job, TYPICAL)
        called = float(function.runs)
        seconds = function.runs * (base + SECONDS_A_TEACHER * teachers)
        for queue, batch in function.queues:
            come = MESSAGES.get(queue, FEW) * teachers
            batches = max(min(come, ON_THE_HOUR * POLLERS), come / batch)
            called += batches
            seconds += batches * base + come * each
            messages += come
        if function.job in ("tutoring.waitlist-offer", "tutoring.waitlist-await"):
            called += OFFERS * teachers
            seconds += OFFERS * teachers * base
        invocations[function.job] = called
        gigabyte_seconds += seconds * function.gigabytes
    runs = sum(invocations.values())
    queues = sum(len(function.queues) for function in bundle.functions)
    calls = teachers * (MESSAGES["tutoring.drive-copy"] * 2 + SYNCS + EMAILS)  # of outside services
    return {
        "Lambda requests": runs,
        "Lambda GB-seconds": gigabyte_seconds,
        "SQS, of messages": messages * 3,  # sent, received, deleted
        "SQS, of idle pollers": queues * POLLERS * SECONDS_A_MONTH / POLL,
        "Schedules going off": ONE_SHOTS * teachers,
        "State transitions": OFFERS * TRANSITIONS_AN_OFFER * teachers,
        "DynamoDB writes": WRITES_A_CALL * calls,
        "DynamoDB reads": READS_A_CALL / 2 * calls,
        "Logs, GB": runs * LOG_BYTES_AN_INVOCATION / 1e9,
        "Metrics": _metrics(bundle, invocations),
        "Metrics watched by alarms": bundle.watched,
        "Dashboards": bundle.dashboards,
        "Secrets": bundle.secrets + 1,  # and the database's
        "Secret reads": COLD_STARTS * SECRETS_A_START * runs,
        "Keys": bundle.keys,
        "Key requests": teachers * (SYNCS + MESSAGES["tutoring.drive-copy"]),
        "Traces": min(runs, SECONDS_A_MONTH * TRACED_AT_ONCE + runs / 20),
        "API requests": SECONDS_A_MONTH / SCRAPE,
        "Archive, GB": AUDIT_GIGABYTES * teachers,
        "Operators who sign in": OPERATORS,
        SES: EMAILS * teachers,
    }


def _metrics(bundle: Bundle, invocations: Mapping[str, float]) -> float:
    """Custom metrics, each of which is paid for in the hours in which it has values."""
    counted = [invocations.get(job, 0.0) for job in (*bundle.critical, "platform.dead-letter-sweep")]
    return sum(min(1.0, count / HOURS_A_MONTH) for count in counted) + bundle.circuits * CIRCUIT_HOURS / HOURS_A_MONTH


def lines_of(bundle: Bundle) -> list[list[str]]:
    """The lines: what, and for each number of teachers the units and US dollars of a month."""
    columns = [units(bundle, teachers) for teachers in TEACHERS]
    lines = [
        [what, *(cell for column in columns for cell in (_count(column[what]), f"{column[what] * price:,.2f}"))]
        for what, price in PRICES.items()
    ]
    totals = [sum(column[what] * price for what, price in PRICES.items()) for column in columns]
    own = [total - column[SES] * PRICES[SES] for total, column in zip(totals, columns, strict=True)]
    each = [total / teachers for total, teachers in zip(totals, TEACHERS, strict=True)]
    lines.append([WITHOUT_EMAILS, *(cell for total in own for cell in ("", f"{total:,.2f}"))])
    lines.append(["All of it", *(cell for total in totals for cell in ("", f"{total:,.2f}"))])
    lines.append(["A teacher", *(cell for one in each for cell in ("", f"{one:,.4f}"))])
    return lines


def _count(number: float) -> str:
    if number >= 1e6:
        return f"{number / 1e6:,.2f} M"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.2f}"


def heads() -> list[str]:
    """The table's columns: for each number of teachers the units, and what they cost."""
    return ["a month, by teachers", *(head for teachers in TEACHERS for head in (f"{teachers:,}", "US$"))]


def page(lines: Sequence[Sequence[str]]) -> str:
    """The table as the page of the documentation."""
    rows = [heads(), ["---", *["---:"] * (len(heads()) - 1)], *lines]
    listed = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    without = next(line for line in lines if line[0] == WITHOUT_EMAILS)
    compared = ", ".join(f"{cost} with {size:,} teachers" for cost, size in zip(without[2::2], TEACHERS, strict=True))
    return f"""# What it costs to run on AWS

Written by `make cost` from the templates. What happens in a month is a model: a teacher has 14 students, gives 60
lessons, has {MESSAGES["tutoring.drive-copy"]:.0f} files copied and {EMAILS} e-mails sent, and offers {OFFERS} seats of
waiting lists. Prices are those of us-east-1 in 2026, on demand, without free allowances. All assumptions stand at the
top of [local/cost.py](../local/cost.py): change them to yours and run it again.

{listed}

What is not in it: PostgreSQL, a NAT gateway or endpoints where the functions are in a VPC, text messages and push
providers. Two lines are there before the first lesson is: Lambda's pollers, which ask each queue for messages all the
time, at a quarter of a dollar a queue and month; and the dashboard, although the first three of an account are free.

One alarm by a Metrics Insights query for all queues would cost the same: CloudWatch bills such a query by the metrics
that it looks at. So each queue has alarms of its own, which say which queue it is.

## Beside what it replaces

The least that two other designs cost a month without the database, in the same region, at any of these sizes:

| | US$ |
| --- | ---: |
| two workers, each a Fargate task of 0.25 vCPU and 0.5 GB on arm64, with a queue in PostgreSQL | 14.4 |
| the same two workers, with a managed Redis (cache.t4g.micro, a single node) | 26.1 |
| Schoolbell, without its e-mails | {compared} |

Those two workers have no alarms, dashboard, traces or logs in that sum, and have to be made larger as the load grows.
"""


def main() -> None:
    """Print the table, and write the page."""
    lines = lines_of(read_bundle())
    shown = Table(
        title="What it costs to run on AWS, by month", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for position, head in enumerate(heads()):
        shown.add_column(head, justify="right" if position else "left", no_wrap=position == 0)
    for line in lines:
        shown.add_row(*line, style="bold" if line[0] == "All of it" else None)
    Console().print(shown)
    PAGE.write_text(page(lines))


if __name__ == "__main__":
    main()
