"""The bundle: what `sam build` makes of the template, and its expanded form for the emulator."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local.emulator.process import ACCESS_KEY, REGION, SECRET_KEY
from local.home import CHECKOUT, ENVIRONMENTS

BUILD: Final = CHECKOUT / ".local" / "build"
BUILT: Final = BUILD / "sam"
EXPANDED: Final = BUILD / "expanded"
LOCAL: Final = ("--config-file", str(CHECKOUT / "samconfig.toml"), "--config-env", "local")
RECIPES: Final = ("samconfig.toml", "local/expansion.py", "local/loops.py")
PACKAGE: Final = "shared"
REST: Final = "rest"
MAKEFILES: Final = ("layers/Makefile", "functions/Makefile")
SOURCES: Final = ("template.yaml", "functions", "layers", PACKAGE, *RECIPES)
IGNORED: Final = ("__pycache__", ".mypy_cache", ".ruff_cache")


class CommandError(RuntimeError):
    """A command failed; the message is what it said."""


def architecture() -> str:
    """This machine's processor in Lambda's words."""
    return "x86_64" if os.uname().machine in ("x86_64", "amd64") else "arm64"


def logical_id(folder: str) -> str:
    """What the template calls a job's function, e.g. `CalendarSync` for the folder `calendar_sync`."""
    return "".join(word.capitalize() for word in folder.split("_"))


def build() -> str:
    """Build and expand the bundle, as far as its sources have changed. Returns their digest.

    The SAM CLI builds it; where nothing but code has changed since, what it would run for that code is run at once.

    Raises:
        CommandError: with what the failed command said.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with exclusively(BUILD / "lock"):
        record = BUILD / "digests.json"
        wanted = _digests()
        built = json.loads(record.read_text()) if record.exists() and EXPANDED.exists() else {}
        if wanted != built:
            record.unlink(missing_ok=True)
            changed = {folder for folder in wanted.keys() | built.keys() if wanted.get(folder) != built.get(folder)}
            if REST in changed or wanted.keys() != built.keys():
                _build_all()
            else:
                for folder in changed:
                    _build_code(folder)
            if REST in changed or PACKAGE in changed:
                _expand()
            record.write_text(json.dumps(wanted, indent=1))
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def _build_all() -> None:
    # The SAM CLI keeps what it has built from an unchanged folder; it does not see Makefiles change.
    recipe = hashlib.sha256()
    for makefile in MAKEFILES:
        recipe.update((CHECKOUT / makefile).read_bytes())
    sam(
        "build",
        *("--template-file", "template.yaml", *LOCAL),
        *("--build-dir", str(BUILT), "--cache-dir", str(BUILD / f"cache-{recipe.hexdigest()[:12]}")),
        *("--parameter-overrides", f"Architecture={architecture()}"),
    )


def _build_code(folder: str) -> None:
    if folder == PACKAGE:  # every domain has it as a layer of its own
        for artifact in sorted(BUILT.glob("*/SchoolbellLayer")):
            _make(folder, f"layers/{architecture()}/Makefile", artifact)
    else:
        _, domain, job = folder.split("/")
        _make(folder, "functions/Makefile", BUILT / domain.capitalize() / logical_id(job))


def _make(folder: str, makefile: str, artifact: Path) -> None:
    shutil.rmtree(artifact)
    artifact.mkdir()
    command: list[str | Path] = ["make", "-C", CHECKOUT / folder, "-f", CHECKOUT / makefile, f"build-{artifact.name}"]
    run(command, ARTIFACTS_DIR=str(artifact))


def _expand() -> None:
    from local.expansion import expand_bundle  # its translator takes a second to import

    expand_bundle(BUILT, EXPANDED)


def _digests() -> dict[str, str]:
    """The digests of each function's folder, of the package, and of everything else that the bundle is made of."""
    folders = [app.parent.relative_to(CHECKOUT).as_posix() for app in CHECKOUT.glob("functions/*/*/app.py")]
    result = {folder: hashlib.sha256() for folder in sorted([*folders, PACKAGE])}
    rest = hashlib.sha256(architecture().encode())
    for source in SOURCES:
        below = CHECKOUT / source
        for file in sorted(below.rglob("*")) if below.is_dir() else [below]:
            if file.is_file() and not any(part in IGNORED for part in file.parts):
                path = file.relative_to(CHECKOUT).as_posix()
                owner = next((folder for folder in result if path.startswith(f"{folder}/")), "")
                result.get(owner, rest).update(f"{path}\0".encode() + file.read_bytes())
    return {REST: rest.hexdigest()} | {folder: found.hexdigest() for folder, found in result.items()}


def sam(*arguments: str, **variables: str) -> None:
    """Run the SAM CLI in the checkout."""
    run([ENVIRONMENTS / "sam" / "bin" / "sam", *arguments], **variables)


def run(command: Sequence[str | Path], **variables: str) -> None:
    """Run a command in the environment that the SAM CLI needs, plus variables.

    Raises:
        CommandError: it ended with an error; the message is all it said.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "PATH": f"{ENVIRONMENTS / 'dev' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.3",  # seconds between two looks at a deployment
        "__SAM_CLI_APP_DIR": str(BUILD / "sam-cli"),
        **variables,
    }
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


@contextmanager
def exclusively(lock: Path) -> Iterator[None]:
    """Hold a lock file, after waiting for whoever holds it."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
