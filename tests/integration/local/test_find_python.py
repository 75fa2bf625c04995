"""A Python 3.13 is found wherever people have it, brought by uv where there is none, or named as what is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.home import CHECKOUT
from tests.packaging.functions import interpreter

ANYWHERE = ("/usr/local/bin/python3.13", "/opt/homebrew/bin/python3.13")
NEEDED = ("cat", "dirname", "mkdir", "ln")


class Machine:
    """A checkout, a home and a PATH with no Python."""

    def __init__(self, folder: Path) -> None:
        self.home, self.programs, self.checkout = (folder / name for name in ("home", "bin", "checkout"))
        for each in (self.home, self.programs, self.checkout / "local"):
            each.mkdir(parents=True)
        shutil.copy(CHECKOUT / "local" / "find-python", self.checkout / "local")
        for program in NEEDED:
            (self.programs / program).symlink_to(str(shutil.which(program)))

    def install(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(interpreter())
        return path

    def script(self, name: str, text: str) -> None:
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    def find(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "local" / "find-python", *arguments],
            env={"PATH": str(self.programs), "HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if any(Path(path).exists() for path in ANYWHERE) or any(Path("/opt").glob("*/bin/python3.13")):
        pytest.skip("this machine has a Python 3.13 where it is always found")
    return Machine(tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "bin/python3.13",
        "home/.pyenv/versions/3.13.5/bin/python3.13",
        "home/.local/share/uv/python/cpython-3.13.5-linux-x86_64-gnu/bin/python3.13",
        "checkout/.venv/dev/bin/python3.13",
    ],
)
def test_finds_it_on_the_path_in_pyenv_in_uv_and_in_the_checkout(machine: Machine, tmp_path: Path, place: str) -> None:
    there = machine.install(tmp_path / place)
    found = machine.find("venv")
    assert (found.stdout.strip(), found.returncode) == (str(there), 0)


def test_passes_over_a_shim_that_does_not_answer(machine: Machine) -> None:
    machine.script("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    there = machine.install(machine.home / ".pyenv/versions/3.13.5/bin/python3.13")
    assert machine.find("venv").stdout.strip() == str(there)


def test_passes_over_one_without_a_module(machine: Machine) -> None:
    machine.install(machine.programs / "python3.13")
    assert machine.find("no_such_module").returncode == 1


def test_has_uv_install_one_below_the_checkout(machine: Machine) -> None:
    target = "$UV_PYTHON_INSTALL_DIR/cpython-3.13.9-any/bin"
    machine.script(
        "uv", f'[ "$1 $2" = "python install" ] && mkdir -p "{target}" && ln -s {interpreter()} "{target}/python3.13"'
    )
    assert machine.find("venv").returncode == 1, "not unless that is asked for"
    found = machine.find("--fetch", "venv")
    assert found.stdout.strip() == str(machine.checkout / ".venv/python/cpython-3.13.9-any/bin/python3.13")
    assert "uv installs one" in found.stderr
    assert machine.find("venv").stdout == found.stdout


def test_says_what_to_install_where_there_is_no_network(machine: Machine) -> None:
    machine.script("uv", "echo 'error: error sending request' >&2; exit 2")
    found = machine.find("--fetch", "venv", "ensurepip")
    assert (found.returncode, found.stdout) == (1, "")
    assert "Python 3.13 is needed, with the modules venv ensurepip" in found.stderr
    for system in ("Debian", "Ubuntu", "macOS"):
        assert system in found.stderr


def test_builds_find_the_same() -> None:
    """`sam build` runs make, with none of the variables of the project's Makefile."""
    for makefile in (
        "functions/Makefile",
        f"layers/{'x86_64' if os.uname().machine == 'x86_64' else 'arm64'}/Makefile",
    ):
        asked = subprocess.run(
            ["make", "--makefile", CHECKOUT / makefile, "--eval", "show:; echo $(PYTHON)", "show"],
            env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert asked.stdout.strip().endswith("python3.13")
