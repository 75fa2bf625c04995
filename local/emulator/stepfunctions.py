"""Step Functions: computed timeouts, failed tasks that wait for a token, the machine's role."""

import contextvars
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions

from local.emulator.roles import role_may

_machine_role: contextvars.ContextVar[str] = contextvars.ContextVar("machine_role", default="")
_machine: contextvars.ContextVar[str] = contextvars.ContextVar("machine", default="")
_awaited_token: contextvars.ContextVar[str] = contextvars.ContextVar("awaited_token", default="")

machine_of_token: dict[str, str] = {}
"""The machine whose task waits for a token."""


def execute_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """TimeoutSeconds may be a JSONata expression, or come from the input by TimeoutSecondsPath."""

    def execute(state: dict[str, Any], given: Any, execution: dict[str, Any], context: dict[str, Any]) -> Any:
        machine = stepfunctions._state_machines.get(context["StateMachine"]["Id"]) or {}
        _machine_role.set(machine.get("roleArn", ""))
        _machine.set(context["StateMachine"]["Id"])
        if "TimeoutSecondsPath" in state:
            seconds = stepfunctions._resolve_path_or_ctx(state["TimeoutSecondsPath"], given, context)
            state = {**state, "TimeoutSeconds": seconds}
        elif isinstance(state.get("TimeoutSeconds"), str):
            seconds = stepfunctions._jsonata_state_field(state, "TimeoutSeconds", "number", given, context)
            state = {**state, "TimeoutSeconds": seconds}
        return original(state, given, execution, context)

    return execute


def await_callback(original: Callable[..., Any]) -> Callable[..., Any]:
    """Remember which token the task waits for, so that a failed call can end the wait, and whose token it is."""

    def wait(resource: str, given: Any, token: str, state: dict[str, Any]) -> Any:
        _awaited_token.set(token)
        machine_of_token[token] = _machine.get()
        try:
            return original(resource, given, token, state)
        finally:
            _awaited_token.set("")

    return wait


def call_lambda(original: Callable[..., Any]) -> Callable[..., Any]:
    """A failed function fails its task, also one that waits for a token; and the machine's role must allow the call."""

    def call(function: str, event: Any) -> Any:
        role = _machine_role.get()
        try:
            if role and not role_may(role, "lambda:InvokeFunction", function):
                raise stepfunctions._ExecutionError("Lambda.AWSLambdaException", f"{role} may not invoke {function}")
            return original(function, event)
        except stepfunctions._ExecutionError as failure:
            waiting = stepfunctions._task_tokens.get(_awaited_token.get())
            if waiting:
                waiting["error"] = {"Error": failure.error, "Cause": failure.cause}
                waiting["event"].set()
            raise

    return call


def install() -> None:
    """Have tasks time out, fail and be allowed as on AWS."""
    stepfunctions._execute_task = execute_task(stepfunctions._execute_task)
    stepfunctions._invoke_with_callback = await_callback(stepfunctions._invoke_with_callback)
    stepfunctions._call_lambda = call_lambda(stepfunctions._call_lambda)
