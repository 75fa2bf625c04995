"""The command `schoolbell`, as an operator has it in a shell after `. .local/env`."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from local.home import CHECKOUT
from local.stack import environment, postgres_of
from tests.end_to_end.stack import Stack


@dataclass(frozen=True)
class CommandLine:
    """Runs the command on a stack."""

    stack: Stack

    def run(self, *arguments: object, code: int = 0) -> str:
        """What a command says to a person; its exit code must be this one."""
        variables = environment(self.stack.home.state(), postgres_of(self.stack.home).url())
        done = subprocess.run(
            [sys.executable, "-m", "schoolbell.cli", *map(str, arguments)],
            env={**os.environ, **variables, "PYTHONPATH": str(CHECKOUT / "shared"), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: object, code: int = 0) -> Any:
        """What a command says to a program."""
        return json.loads(self.run(*arguments, "--json", code=code))
