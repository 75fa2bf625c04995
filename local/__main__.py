"""The embedded stack's commands: ``python -m local up | down | status | logs | invoke | build``."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from local import bundle, containers, stack
from local.bundle import CommandError
from local.home import DEFAULT_HOME, Home, State
from local.invocation import invoke
from local.logs import show_logs
from local.postgres import PostgresError
from local.processes import ProcessError, alive
from local.progress import CONSOLE, step


def main() -> int:
    """Run one command. Returns the exit code."""
    options = parser().parse_args()
    try:
        return command(options)
    except (CommandError, ProcessError, PostgresError) as failure:
        CONSOLE.print(str(failure), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--home", type=Path, default=DEFAULT_HOME, help="where the instance keeps its files")
    result = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[shared], help="start it, or bring it up to date with the code")
    up.add_argument("--stack", default="schoolbell", help="the stack's name")
    down = commands.add_parser("down", parents=[shared], help="stop it")
    down.add_argument("--purge", action="store_true", help="delete the database's data too")
    commands.add_parser("status", parents=[shared], help="what is running")
    logs = commands.add_parser("logs", parents=[shared], help="the functions' logs")
    logs.add_argument("function", nargs="?", default="", help="part of a function's name")
    logs.add_argument("--follow", action="store_true", help="go on with new records")
    call = commands.add_parser("invoke", parents=[shared], help="invoke a job")
    call.add_argument("job", nargs="?", default="", help="e.g. tutoring.lifecycle-detection")
    call.add_argument("--event", type=Path, help="a file with the event; the job's own of events/ if not given")
    commands.add_parser("build", parents=[shared], help="build the layers and functions")
    return result


def command(options: argparse.Namespace) -> int:
    """Carry out what was asked."""
    home = Home(options.home)
    match options.command:
        case "up":
            enforce_iam = os.environ.get("AUTH", "").lower() in ("1", "true", "yes")
            asked = os.environ.get("CONTAINERS", "")
            address = "" if asked.lower() in ("", "0", "false", "no") else containers.host(asked)
            stack.up(home, options.stack, enforce_iam=enforce_iam, containers=address, parameters=parameters())
        case "down":
            stack.down(home, purge=options.purge)
        case "status":
            return 0 if stack.status(home) else 1
        case "logs":
            state = running(home)
            show_logs(state.stack, state.ports["emulator"], options.function, follow=options.follow)
        case "invoke":
            return 0 if invoke(running(home), options.job, options.event) else 1
        case "build":
            with step("Build") as current:
                bundle.build()
                current.note = f"for {bundle.architecture()}, in {bundle.BUILT}"
    return 0


def parameters() -> dict[str, str]:
    """The template's parameters that the environment gives: PARAMETERS="EmailProvider=sendgrid SmsProvider=twilio".

    Raises:
        CommandError: one has no value.
    """
    given = shlex.split(os.environ.get("PARAMETERS", ""))
    unclear = [each for each in given if "=" not in each]
    if unclear:
        raise CommandError(f"PARAMETERS: expected Name=value, got {' '.join(unclear)}")
    return dict(each.split("=", 1) for each in given)


def running(home: Home) -> State:
    """What is remembered of a stack that is running."""
    state = home.state()
    if not alive(state.processes.get("emulator")):
        raise CommandError("The stack is not running: make up")
    return state


if __name__ == "__main__":
    sys.exit(main())
