"""How the containers of `sam local` reach the embedded stack, and what they are told of it."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from local.bundle import CommandError, logical_id
from local.emulator.process import client, endpoint
from local.home import CHECKOUT

DOCKER_DESKTOP: Final = "host.docker.internal"
"""This machine's loopback, for the containers of Docker Desktop."""
BRIDGE: Final = '{{index .Options "com.docker.network.bridge.name"}}'


def host(wanted: str) -> str:
    """By what name or address containers reach this machine.

    Args:
        wanted: `true` to ask Docker, or the name or address itself.

    Raises:
        CommandError: Docker is not there to be asked.
    """
    if wanted.lower() not in ("1", "true", "yes"):
        return wanted
    docker = shutil.which("docker")
    if docker is None:
        raise CommandError(
            "CONTAINERS: docker is not on the PATH; give the address of this machine for containers instead"
        )
    asked = subprocess.run(
        [docker, "network", "inspect", "bridge", "--format", BRIDGE], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise CommandError(f"CONTAINERS: docker does not answer: {asked.stderr.strip()}")
    return address_of(asked.stdout.strip()) or DOCKER_DESKTOP  # whose bridge is in a virtual machine


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface of this machine; empty if there is no such interface."""
    found = psutil.net_if_addrs().get(interface, [])
    return next((each.address for each in found if each.family.name == "AF_INET"), "")


def is_ours(host: str) -> bool:
    """Whether an address is one of this machine's own, on which a relay can listen."""
    return any(each.address == host for found in psutil.net_if_addrs().values() for each in found)


def write_variables(path: Path, stack: str, ports: Mapping[str, int], host: str, overrides: Mapping[str, str]) -> None:
    """Write the file for `sam local --env-vars`: what each deployed function has in its environment.

    Args:
        path: of the file.
        stack: whose functions.
        ports: of the services on this machine.
        host: by which containers reach them.
        overrides: variables that differ in a container.
    """
    variables = {
        name: {
            key: _reachable(value, ports, host)
            for key, value in {**found, "AWS_ENDPOINT_URL": endpoint(ports["emulator"]), **overrides}.items()
        }
        for name, found in _variables(stack, ports["emulator"])
    }
    path.write_text(json.dumps(variables, indent=1) + "\n")


def _variables(stack: str, port: int) -> list[tuple[str, dict[str, str]]]:
    """The variables of each deployed function, by the name that `sam local invoke` knows it by."""
    found = {}
    for page in client("lambda", port).get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            found[function["FunctionName"]] = function.get("Environment", {}).get("Variables", {})
    return [(sam_name, found[name]) for name, sam_name in _functions(stack).items() if name in found]


def _functions(stack: str) -> dict[str, str]:
    """The functions of a stack, by name, each as `Domain/LogicalId`."""
    folders = sorted(app.parent.relative_to(CHECKOUT / "functions") for app in CHECKOUT.glob("functions/*/*/app.py"))
    return {
        f"{stack}-{domain}-{job.replace('_', '-')}": f"{domain.capitalize()}/{logical_id(job)}"
        for domain, job in (folder.parts for folder in folders)
    }


def _reachable(value: str, ports: Mapping[str, int], host: str) -> str:
    for port in ports.values():
        value = value.replace(f"//127.0.0.1:{port}", f"//{host}:{port}")
    return value
