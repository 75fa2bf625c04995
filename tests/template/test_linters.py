"""The templates pass the linters that know AWS."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from local.expansion import expand_template
from local.home import CHECKOUT, ENVIRONMENTS

TEMPLATES = [CHECKOUT / "template.yaml", *sorted(CHECKOUT.glob("functions/*/template.yaml"))]
CHECKS = Path(__file__).with_name("checkov.yaml")


def test_cfn_lint_finds_nothing() -> None:
    run(ENVIRONMENTS / "dev" / "bin" / "cfn-lint", *TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.parent.name)
def test_sam_finds_nothing(template: Path) -> None:
    sam = ENVIRONMENTS / "sam" / "bin" / "sam"
    run(sam, "validate", "--lint", "--language-extensions", "--region", "us-east-1", "--template", template)


def test_cfn_lint_looks_into_the_loops(tmp_path: Path) -> None:
    text = (CHECKOUT / "functions" / "tutoring" / "template.yaml").read_text()
    broken = tmp_path / "template.yaml"
    broken.write_text(text.replace("QueueName:", "QueueNam:"))
    with pytest.raises(AssertionError, match="QueueNam"):
        run(ENVIRONMENTS / "dev" / "bin" / "cfn-lint", broken)


@pytest.fixture(scope="module")
def expanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The templates as CloudFormation gets them, since checkov knows neither loops nor SAM's events."""
    folder = tmp_path_factory.mktemp("expanded")
    for template in TEMPLATES:
        (folder / f"{template.parent.name}.json").write_text(json.dumps(expand_template(template)))
    return folder


def test_checkov_finds_nothing_that_has_no_reason(expanded: Path) -> None:
    run(ENVIRONMENTS / "checkov" / "bin" / "checkov", "--config-file", CHECKS, "--directory", expanded)


def run(*command: str | Path) -> None:
    """Runs a linter; fails with what it says if it finds something."""
    if not Path(command[0]).exists():
        pytest.fail(f"{command[0]} is missing; `make test` installs it")
    environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, cwd=CHECKOUT, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
