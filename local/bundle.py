"""The bundle: what `sam build` makes of the template, and its expanded form for the emulator."""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local.emulator import ACCESS_KEY, REGION, SECRET_KEY
from local.home import CHECKOUT, ENVIRONMENTS

BUILD: Final = CHECKOUT / ".local" / "build"
BUILT: Final = BUILD / "sam"
EXPANDED: Final = BUILD / "expanded"
RECIPES: Final = ("samconfig.toml", "local/expansion.py", "local/loops.py")
SOURCES: Final = ("template.yaml", "functions", "layers", "shared", *RECIPES)
IGNORED: Final = ("__pycache__", ".mypy_cache", ".ruff_cache")


class CommandError(RuntimeError):
    """A command failed; the message is what it said."""


def architecture() -> str:
    """This machine's processor in Lambda's words."""
    return "x86_64" if os.uname().machine in ("x86_64", "amd64") else "arm64"


def digest(*paths: str) -> str:
    """A digest of the files at and below paths of the checkout."""
    result = hashlib.sha256(architecture().encode())
    for path in paths:
        below = CHECKOUT / path
        for file in sorted(below.rglob("*")) if below.is_dir() else [below]:
            if file.is_file() and not any(part in IGNORED for part in file.parts):
                result.update(f"{file.relative_to(CHECKOUT)}\0".encode() + file.read_bytes())
    return result.hexdigest()


def build() -> str:
    """Build and expand the bundle unless that has been done for these very sources. Returns their digest.

    Raises:
        CommandError: with the SAM CLI's output.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with exclusively(BUILD / "lock"):
        wanted = digest(*SOURCES)
        done = BUILD / "digest"
        if done.exists() and done.read_text() == wanted and EXPANDED.exists() and BUILT.exists():
            return wanted
        done.unlink(missing_ok=True)
        # The SAM CLI builds again what changed in a CodeUri; it does not see the Makefiles and the processor change.
        recipe = digest("layers/Makefile", "functions/Makefile")[:12]
        sam(
            "build",
            *("--template-file", "template.yaml", "--config-env", "local"),
            *("--build-dir", str(BUILT), "--cache-dir", str(BUILD / f"cache-{recipe}")),
            *("--parameter-overrides", f"Architecture={architecture()}"),
        )
        from local.expansion import expand_bundle  # the translator takes a second to import

        expand_bundle(BUILT, EXPANDED)
        done.write_text(wanted)
        return wanted


def sam(*arguments: str, endpoint: str = "") -> str:
    """Run the SAM CLI in the checkout. Returns what it said."""
    return run([ENVIRONMENTS / "sam" / "bin" / "sam", *arguments], endpoint=endpoint)


def run(command: Sequence[str | Path], *, endpoint: str = "") -> str:
    """Run a command in the environment that the SAM CLI needs.

    Raises:
        CommandError: it ended with an error; the message is all it said.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "PATH": f"{ENVIRONMENTS / 'dev' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ARCHITECTURE": architecture(),
        "MAKEFLAGS": "--silent",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.3",  # seconds between two looks at a deployment
        "__SAM_CLI_APP_DIR": str(BUILD / "sam-cli"),
    }
    if endpoint:
        environment["AWS_ENDPOINT_URL"] = endpoint
    done = subprocess.run(
        [str(part) for part in command],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"{Path(command[0]).name} {command[1]} failed:\n{done.stdout}")
    return done.stdout


@contextmanager
def exclusively(lock: Path) -> Iterator[None]:
    """Hold a lock file, after waiting for whoever holds it."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
