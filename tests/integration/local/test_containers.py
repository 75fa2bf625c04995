"""By what name containers reach this machine, as Docker tells it."""

from pathlib import Path

import pytest

from local.bundle import CommandError
from local.containers import DOCKER_DESKTOP, host, is_ours


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing on the PATH but what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "docker"


def says(docker: Path, script: str) -> None:
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)


def test_on_linux_it_is_the_address_of_dockers_bridge(docker: Path) -> None:
    says(docker, '[ "$1 $2 $3" = "network inspect bridge" ] && echo lo')
    assert host("true") == "127.0.0.1"


def test_where_the_bridge_is_in_a_virtual_machine_it_is_docker_desktops_name(docker: Path) -> None:
    says(docker, "echo no-such-interface")
    assert host("true") == DOCKER_DESKTOP


def test_a_name_that_is_given_is_taken(docker: Path) -> None:
    assert host("host.containers.internal") == "host.containers.internal"


def test_without_docker_an_address_has_to_be_given(docker: Path) -> None:
    with pytest.raises(CommandError, match="docker is not on the PATH"):
        host("true")


def test_an_engine_that_does_not_run_is_told_of(docker: Path) -> None:
    says(docker, "echo 'Is the docker daemon running?' >&2; exit 1")
    with pytest.raises(CommandError, match="docker does not answer: Is the docker daemon running"):
        host("true")


def test_a_relay_can_listen_on_addresses_of_this_machine_only() -> None:
    assert is_ours("127.0.0.1")
    assert not is_ours("192.0.2.1")
    assert not is_ours(DOCKER_DESKTOP)
