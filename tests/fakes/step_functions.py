"""Step Functions on a clock that the test turns: runs a state machine's own definition, as strict as AWS about its API.

It knows what the project's machines use: JSONata; Task (`lambda:invoke`, with and without `.waitForTaskToken`), Map,
Choice, Pass, Succeed and Fail; TimeoutSeconds, Retry and Catch. Nothing happens by itself: the test asks which threads
(an execution, or an iteration of its Map) have a step to take, and lets one take it.
"""

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import ClientError
from jsonata.jsonata import Jsonata

type Json = Any
type Steps = Generator["Pause", None, Json]

NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
MOST_HISTORY_EVENTS = 25_000
MOST_INPUT = 256 * 1024
MOST_CONCURRENT_ITERATIONS = 40


@dataclass
class Clock:
    """The time, for jobs and machines alike."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


class StateError(Exception):
    """A state failed with an error that Retry and Catch may know."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause

    def is_one_of(self, names: list[str]) -> bool:
        if "States.ALL" in names or self.error in names:
            return True
        return "States.TaskFailed" in names and self.error != "States.Timeout"


@dataclass
class Pause:
    """What a thread waits for: a moment, the end of other threads, or the answer to a task token."""

    until: datetime | None = None
    threads: list["Thread"] = field(default_factory=list)
    answered: bool = False
    output: Json = None

    def is_over(self, now: datetime) -> bool:
        if self.threads:
            return all(thread.is_over for thread in self.threads)
        return self.answered or (self.until is not None and self.until <= now)


@dataclass
class Thread:
    """An execution, or one iteration of its Map."""

    execution: "Execution"
    steps: Steps = field(repr=False)
    state: str = ""
    pause: Pause = field(default_factory=Pause)
    is_over: bool = False
    output: Json = None
    error: StateError | None = None


@dataclass
class Execution:
    """One execution of the machine."""

    arn: str
    name: str
    input: str
    status: str = "RUNNING"
    output: Json = None
    error: str | None = None
    events: int = 1
    threads: list[Thread] = field(default_factory=list)


class StepFunctions:
    """A machine and its executions; has the methods of boto3's client that the project calls.

    Args:
        definition: the machine's ASL, YAML or JSON.
        functions: what a `FunctionName` of the definition does; raises what a Lambda function would raise.
        clock: tells the time.
    """

    def __init__(self, definition: Path, functions: Mapping[str, Callable[[Json], Json]], clock: Clock) -> None:
        self._definition = yaml.safe_load(definition.read_text())
        self._functions = functions
        self._clock = clock
        self._tokens: dict[str, tuple[Execution, Pause]] = {}
        self._numbers = count(1)
        self.executions: dict[str, Execution] = {}
        self.woken: set[str] = set()
        """The tokens with which the end of a task was reported, whether or not somebody waited for it."""

    # What jobs call

    def start_execution(self, *, stateMachineArn: str, name: str, input: str) -> dict[str, Any]:  # noqa: N803
        """Starts an execution; the same name and input again is the same execution, while it runs."""
        if not NAME.fullmatch(name):
            raise _refusal("InvalidName", "StartExecution")
        if len(input) > MOST_INPUT:
            raise _refusal("InvalidExecutionInput", "StartExecution")
        known = self.executions.get(name)
        if known and (known.status != "RUNNING" or known.input != input):
            raise _refusal("ExecutionAlreadyExists", "StartExecution")
        if not known:
            arn = f"{stateMachineArn.replace(':stateMachine:', ':execution:')}:{name}"
            known = self.executions[name] = Execution(arn, name, input)
            self._begin(known, self._top(known))
        return {"executionArn": known.arn, "startDate": self._clock.now}

    def send_task_success(self, *, taskToken: str, output: str) -> dict[str, Any]:  # noqa: N803
        """Ends the wait for a task's answer."""
        self.woken.add(taskToken)
        known = self._tokens.get(taskToken)
        if not known:
            raise _refusal("InvalidToken", "SendTaskSuccess")
        execution, pause = known
        if execution.status != "RUNNING" or pause.answered:
            raise _refusal("TaskDoesNotExist", "SendTaskSuccess")
        if pause.is_over(self._clock.now):
            raise _refusal("TaskTimedOut", "SendTaskSuccess")
        pause.answered, pause.output = True, json.loads(output)
        return {}

    # What a test does

    def ready(self) -> list[Thread]:
        """The threads that have a step to take now."""
        return [
            thread
            for execution in self.executions.values()
            if execution.status == "RUNNING"
            for thread in execution.threads
            if not thread.is_over and thread.pause.is_over(self._clock.now)
        ]

    def step(self, thread: Thread) -> None:
        """Lets a thread go on to where it next waits."""
        execution = thread.execution
        try:
            thread.pause = next(thread.steps)
        except StopIteration as end:
            thread.is_over, thread.output = True, end.value
        except StateError as error:
            thread.is_over, thread.error = True, error
        if execution.events > MOST_HISTORY_EVENTS:
            execution.status, execution.error = "FAILED", "States.Runtime"
        elif thread is execution.threads[0] and thread.is_over:
            execution.output = thread.output
            execution.status = "FAILED" if thread.error else "SUCCEEDED"
            execution.error = thread.error.error if thread.error else None

    def run(self) -> None:
        """Lets every thread go on until all wait for an answer, or for time to pass."""
        while ready := self.ready():
            self.step(ready[0])

    def stop(self, name: str) -> None:
        """Aborts an execution, as an operator would."""
        self.executions[name].status = "ABORTED"

    def restore(self, executions: Mapping[str, Execution]) -> None:
        """Goes back to these executions, whose tasks nobody has answered."""
        self.executions = dict(executions)
        self.woken.clear()
        for _, pause in self._tokens.values():
            pause.answered = False

    @property
    def running(self) -> list[str]:
        return [name for name, execution in self.executions.items() if execution.status == "RUNNING"]

    # How a machine runs

    def _begin(self, execution: Execution, steps: Steps) -> Thread:
        thread = Thread(execution, steps, pause=Pause(self._clock.now))
        execution.threads.append(thread)
        return thread

    def _top(self, execution: Execution) -> Steps:
        context = {"Execution": {"Id": execution.arn, "Name": execution.name}}
        return (yield from self._states(execution, self._definition, json.loads(execution.input), context))

    def _states(self, execution: Execution, machine: Json, value: Json, context: Json) -> Steps:
        name = machine["StartAt"]
        while True:
            state = machine["States"][name]
            context = {**context, "State": {"Name": name}}
            execution.events += 2  # entered and exited
            match state["Type"]:
                case "Task" | "Map":
                    value, following = yield from self._tried(execution, state, value, context)
                case "Choice":
                    following = self._chosen(state, value, context)
                case "Pass":
                    value, following = self._output(state, value, context, None), state.get("Next")
                case "Succeed":
                    return self._output(state, value, context, None)
                case "Fail":
                    raise StateError(state["Error"], state["Cause"])
                case other:
                    raise NotImplementedError(other)
            if state.get("End"):
                return value
            name = following

    def _tried(self, execution: Execution, state: Json, value: Json, context: Json) -> Generator[Pause, None, Any]:
        attempts: dict[int, int] = {}
        while True:
            try:
                result = yield from self._done(execution, state, value, context)
                return self._output(state, value, context, result), state.get("Next")
            except StateError as error:
                execution.events += 1
                retry = next(_matching(error, state.get("Retry", [])), None)
                if retry and attempts.get(id(retry), 0) < retry.get("MaxAttempts", 3):
                    attempts[id(retry)] = attempt = attempts.get(id(retry), 0) + 1
                    seconds = retry.get("IntervalSeconds", 1) * retry.get("BackoffRate", 2) ** (attempt - 1)
                    yield Pause(
                        self._clock.now + timedelta(seconds=min(seconds, retry.get("MaxDelaySeconds", seconds)))
                    )
                    continue
                catcher = next(_matching(error, state.get("Catch", [])), None)
                if not catcher:
                    raise
                return self._output(catcher, value, context, None), catcher["Next"]

    def _done(self, execution: Execution, state: Json, value: Json, context: Json) -> Steps:
        if state["Type"] == "Map":
            return (yield from self._mapped(execution, state, value, context))
        yield Pause(self._clock.now)  # the test says when
        execution.events += 3  # scheduled, started, ended
        is_callback = state["Resource"].endswith(".waitForTaskToken")
        pause, token = Pause(), f"token-{next(self._numbers)}"
        if is_callback:
            context = {**context, "Task": {"Token": token}}
            seconds = self._evaluate(state["TimeoutSeconds"], value, context, None)
            if type(seconds) is not int or not 0 < seconds <= 99_999_999:
                raise StateError("States.Runtime", f"TimeoutSeconds: {seconds}")
            pause.until = self._clock.now + timedelta(seconds=seconds)
            self._tokens[token] = execution, pause
        arguments = self._evaluate(state["Arguments"], value, context, None)
        try:
            payload = self._functions[arguments["FunctionName"]](json.loads(json.dumps(arguments["Payload"])))
        except Exception as error:
            self._tokens.pop(token, None)
            raise StateError(type(error).__name__, str(error)) from error
        if not is_callback:
            return {"StatusCode": 200, "Payload": json.loads(json.dumps(payload))}
        execution.events += 1
        yield pause
        if not pause.answered:
            raise StateError("States.Timeout")
        return pause.output

    def _mapped(self, execution: Execution, state: Json, value: Json, context: Json) -> Steps:
        items = self._evaluate(state["Items"], value, context, None)
        if not isinstance(items, list):
            raise StateError("States.QueryEvaluationError", "Items is no array")
        if not 0 < state["MaxConcurrency"] <= MOST_CONCURRENT_ITERATIONS or len(items) > state["MaxConcurrency"]:
            raise NotImplementedError("iterations that wait for others")
        threads = []
        for index, item in enumerate(items):
            inner = {**context, "Map": {"Item": {"Index": index, "Value": item}}}
            selected = self._evaluate(state["ItemSelector"], value, inner, None)
            execution.events += 2
            threads.append(self._begin(execution, self._states(execution, state["ItemProcessor"], selected, inner)))
        yield Pause(threads=threads)
        failed = next((thread.error for thread in threads if thread.error), None)
        if failed:
            raise failed
        return [thread.output for thread in threads]

    def _chosen(self, state: Json, value: Json, context: Json) -> str:
        for choice in state["Choices"]:
            if self._evaluate(choice["Condition"], value, context, None) is True:
                return str(choice["Next"])
        return str(state["Default"])

    def _output(self, state: Json, value: Json, context: Json, result: Json) -> Json:
        if "Output" in state:
            return self._evaluate(state["Output"], value, context, result)
        return value if result is None else result

    def _evaluate(self, template: Json, value: Json, context: Json, result: Json) -> Json:
        if isinstance(template, dict):
            return {name: self._evaluate(each, value, context, result) for name, each in template.items()}
        if isinstance(template, list):
            return [self._evaluate(each, value, context, result) for each in template]
        if not (isinstance(template, str) and template.startswith("{%") and template.endswith("%}")):
            return template
        states = {"input": value, "context": context, "result": result}
        evaluated = Jsonata.jsonata(template[2:-2].strip()).evaluate(None, {"states": states})
        if evaluated is None:
            raise StateError("States.QueryEvaluationError", template)
        return evaluated


def _matching(error: StateError, handlers: list[Json]) -> Iterator[Json]:
    return (handler for handler in handlers if error.is_one_of(handler["ErrorEquals"]))


def _refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)
