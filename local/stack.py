"""Bringing an instance of the embedded stack up and down."""

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rich.table import Table

from local import bundle, deployment
from local import containers as sam_containers
from local.containers import is_ours
from local.emulator.process import ACCESS_KEY, LOOPBACK, REGION, SECRET_KEY, answers, endpoint, start_emulator
from local.home import CHECKOUT, ENVIRONMENTS, Home, RecordedProcess, State
from local.postgres import Postgres
from local.processes import alive, free_port, start, stop
from local.progress import CONSOLE, step

SETTINGS: Final = {
    "shared_buffers": "256MB",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
}
"""PostgreSQL's settings, for honest speed: what is committed is on the disk."""


def up(
    home: Home, stack: str, *, enforce_iam: bool, containers: str = "", parameters: Mapping[str, str] | None = None
) -> None:
    """Start what isn't running, and bring what is up to date with the code. Nothing happens when nothing changed.

    Args:
        home: where the instance keeps its files.
        stack: its name.
        enforce_iam: whether roles may do no more than they may on AWS.
        containers: the name or address by which containers are to reach it; the loopback only, if empty.
        parameters: values of the root template's parameters, other than this machine's.

    Raises:
        CommandError, ProcessError, PostgresError: a step failed; what was started keeps running for a look at it.
    """
    with bundle.exclusively(home.lock):
        state = home.state()
        if stack != state.stack or enforce_iam != state.enforces_iam:
            end(home, state)
            state = State(stack=stack, enforces_iam=enforce_iam, ports=state.ports)
        database = start_database(home, state)
        started = start_services(home, state)
        moved = reach_containers(home, state, containers)
        if (started or moved) and "sandbox" in state.processes:
            host = state.containers if "relay" in state.processes else LOOPBACK
            deployment.put_provider_secrets(stack, state.ports["emulator"], endpoint(state.ports["sandbox"], host))
        with step("Build") as current:
            built = bundle.build()
            current.note = f"template, layers and functions for {bundle.architecture()}"
        sandbox = endpoint(state.ports["sandbox"]) if "sandbox" in state.ports else "http://127.0.0.1:9"
        given = json.dumps(dict(parameters or {}), sort_keys=True)
        wanted = sha256("\n".join([built, database, sandbox, given]).encode()).hexdigest()
        if state.deployed != wanted:
            state.deployed = ""
            home.remember(state)
            with step("Deploy") as current:
                port = state.ports["emulator"]
                secret = deployment.put_database_secret(stack, port, database)
                admin = deployment.admin_url(stack, port)
                own = deployment.parameters(secret, sandbox, admin)
                deployment.deploy(stack, port, {**own, **(parameters or {})})
                current.note = f"stack {stack}, by the SAM CLI"
            state.deployed = wanted
            home.remember(state)
            home.variables.unlink(missing_ok=True)
        if moved or not home.variables.exists():
            write_variables(home, state, database)
        exports = environment(state, database)
        home.exports.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()))
        home.exports.chmod(0o600)
    show(home, exports, "" if containers else "  [dim](containers reach it after: make up CONTAINERS=true)[/]")


def start_database(home: Home, state: State) -> str:
    """Start PostgreSQL. Returns the database's URL."""
    postgres = postgres_of(home)
    with step("PostgreSQL") as current:
        if not postgres.running:
            postgres.port = state.ports["postgres"] = free_port(state.ports.get("postgres"))
            home.remember(state)
        url = postgres.start()
        current.note = url.split("@")[-1].split("?")[0]
    return url


def start_services(home: Home, state: State) -> bool:
    """Start the emulator, and the stand-in for the outside services. Returns whether one was not running."""
    before = dict(state.processes)

    def remember(name: str, process: RecordedProcess) -> None:
        state.processes[name] = process
        home.remember(state)

    emulator = state.processes.get("emulator")
    if alive(emulator) and not state.deployed and deployment.is_stuck(state.stack, state.ports["emulator"]):
        stop(emulator)
    if not alive(emulator):
        with step("Emulator") as current:
            port = state.ports["emulator"] = free_port(state.ports.get("emulator"))
            state.deployed = ""
            start_emulator(home, port, enforce_iam=state.enforces_iam, remember=partial(remember, "emulator"))
            current.note = endpoint(port) + (", enforcing IAM" if state.enforces_iam else "")
    if not alive(state.processes.get("sandbox")) and find_spec("local.sandbox"):
        with step("Sandbox") as current:
            port = state.ports["sandbox"] = free_port(state.ports.get("sandbox"))
            start(
                [
                    *(ENVIRONMENTS / "dev" / "bin" / "python", "-m", "local.sandbox", "--port", str(port)),
                    *("--issuer-key", home.folder / "issuer.pem"),
                ],
                environment={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                folder=home.folder,
                log=home.logs / "sandbox.log",
                ready=partial(answers, f"{endpoint(port)}/health"),
                remember=partial(remember, "sandbox"),
            )
            current.note = f"{endpoint(port)}, stands in for outside services"
    return state.processes != before


def reach_containers(home: Home, state: State, host: str) -> bool:
    """Have containers reach the services, or no longer. Returns whether that is new.

    Where the host is an address of this machine (Docker on Linux), a relay listens on it. On Docker Desktop it is a
    name for the loopback, which the services listen on.
    """
    relay = state.processes.get("relay")
    ports = [str(state.ports[name]) for name in ("postgres", "emulator", "sandbox") if name in state.ports]
    wanted = [host, *ports] if host and is_ours(host) else []
    if state.containers == host and state.relayed == wanted and (alive(relay) or not wanted):
        return False
    stop(relay)
    state.processes.pop("relay", None)
    state.containers, state.relayed = host, wanted
    if wanted:
        with step("Relay") as current:

            def remember(process: RecordedProcess) -> None:
                state.processes["relay"] = process
                home.remember(state)

            start(
                [ENVIRONMENTS / "dev" / "bin" / "python", "-m", "local.relay", *wanted],
                environment={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                folder=home.folder,
                log=home.logs / "relay.log",
                ready=partial(answers, f"{endpoint(state.ports['emulator'], host)}/_ministack/health"),
                remember=remember,
            )
            current.note = f"containers reach the stack at {host}"
    home.remember(state)
    return True


def write_variables(home: Home, state: State, database: str) -> None:
    """Write what `sam local --env-vars` takes: the deployed functions' variables, with addresses for containers."""
    overrides = {}
    if state.containers:
        overrides["DATABASE_SECRET_ID"] = deployment.put_database_secret(
            state.stack, state.ports["emulator"], database, host=state.containers
        )
    sam_containers.write_variables(home.variables, state.stack, state.ports, state.containers or LOOPBACK, overrides)


def down(home: Home, *, purge: bool) -> None:
    """End everything this instance started. The database's data stay, unless they are purged."""
    with bundle.exclusively(home.lock):
        state = home.state()
        end(home, state)
        home.remember(State(ports=state.ports))
        home.exports.unlink(missing_ok=True)
        home.variables.unlink(missing_ok=True)
        shutil.rmtree(home.scratch, ignore_errors=True)
        if purge:
            with step("Purge"):
                postgres_of(home).remove()


def end(home: Home, state: State) -> None:
    """End the instance's processes."""
    for name, process in reversed(state.processes.items()):
        if alive(process):
            with step(f"Stop {name}"):
                stop(process)
    postgres = postgres_of(home)
    if postgres.running:
        with step("Stop PostgreSQL"):
            postgres.stop()


def environment(state: State, database: str) -> dict[str, str]:
    """What a program needs to use the stack."""
    variables = {
        "AWS_ENDPOINT_URL": endpoint(state.ports["emulator"]),
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "DATABASE_URL": database,
        "SCHOOLBELL_STACK": state.stack,
    }
    if "sandbox" in state.processes:
        sandbox = endpoint(state.ports["sandbox"])
        variables["GOOGLE_SANDBOX_URL"] = sandbox
        variables["ADMIN_URL"] = f"{deployment.admin_url(state.stack, state.ports['emulator'])}/admin/scheduled-jobs"
        variables["ADMIN_TOKEN"] = deployment.admin_token(sandbox)
    return variables


def status(home: Home) -> bool:
    """Show what is running. Returns whether the whole stack is up."""
    state = home.state()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    processes = {name: alive(process) for name, process in state.processes.items()}
    running = {"postgres": postgres_of(home).running, "emulator": False, **processes}
    for name, runs in running.items():
        where = f"for containers, at {state.containers}" if name == "relay" else f"port {state.ports.get(name, '-')}"
        table.add_row(name, "[green]running[/]" if runs else "[red]stopped[/]", where)
    table.add_row("stack", state.stack if state.deployed else "[red]not deployed[/]", "")
    CONSOLE.print(table)
    return all(running.values()) and bool(state.deployed)


def show(home: Home, exports: dict[str, str], hint: str) -> None:
    """Show the endpoints, and the files that name them; a hint stands beside the one for containers."""
    CONSOLE.print()
    for name, value in exports.items():
        if not name.startswith("AWS_") or name == "AWS_ENDPOINT_URL":
            CONSOLE.print(f"[cyan]{name:<18}[/]  {value}", soft_wrap=True)
    CONSOLE.print(f"\nTo use it from a shell    [bold]. {shown(home.exports)}[/]", soft_wrap=True)
    CONSOLE.print(f"From sam local            [bold]--env-vars {shown(home.variables)}[/]{hint}", soft_wrap=True)


def shown(path: Path) -> Path:
    """A path as one types it in the checkout."""
    return path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path


def postgres_of(home: Home) -> Postgres:
    """The instance's PostgreSQL server."""
    return Postgres(home.postgres, database="schoolbell", settings=SETTINGS)
