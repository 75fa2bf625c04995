"""A new job is four things: with those of `tests/scratch/<kind>` in a copy of the checkout, every rule is kept.

The jobs' own tests run where they are. CONTRIBUTING.md shows these files.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.home import CHECKOUT
from tests.template.bundle import PARTS, Bundle, Job, read_bundle
from tests.template.rules import RULES

SCRATCH = CHECKOUT / "tests" / "scratch"
KINDS = sorted(path.parent.name for path in SCRATCH.glob("*/app.py"))
DOMAIN = "tutoring"


def add(kind: str, checkout: Path) -> Job:
    """Adds a scratch job to a copy: `app.py`, its places in the template, its event, its test."""
    source = SCRATCH / kind
    (test,) = source.glob("test_*.py")
    job = Job(DOMAIN, test.stem.removeprefix("test_"))
    folder = checkout / "functions" / DOMAIN / job.folder
    folder.mkdir()
    shutil.copy(source / "app.py", folder)
    shutil.copy(source / "event.json", checkout / "events" / DOMAIN / f"{job.folder}.json")
    shutil.copy(test, checkout / "tests" / "integration" / DOMAIN)
    _add_to_template(
        checkout / "functions" / DOMAIN / "template.yaml", yaml.safe_load((source / "template.yaml").read_text())
    )
    return job


def _add_to_template(path: Path, added: dict[str, str]) -> None:
    """Its line under `Names`, its place in the list of its loop, and its stanza at the end."""
    name, text = added["Names"].partition(":")[0], path.read_text()
    text = re.sub(r"^(  Names:.*\n)", rf"\1    {added['Names']}\n", text, count=1, flags=re.MULTILINE)
    loop = rf"(  Fn::ForEach::{added['Loop']}:\n    - Job\n    - )(\[|- )"
    text, places = re.subn(loop, lambda m: f"{m[1]}[{name}, " if m[2] == "[" else f"{m[1]}- {name}\n      - ", text)
    assert places == 1, added["Loop"]
    stanza = "".join(f"  {line}" for line in added["Stanza"].splitlines(keepends=True))
    path.write_text(f"{text}\n{stanza}")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the bundle is made of, with a scratch job of each kind."""
    copy = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / part, copy / part)
    for kind in KINDS:
        add(kind, copy)
    return copy


@pytest.fixture(scope="module")
def grown(checkout: Path) -> Bundle:
    """The bundle with the scratch jobs."""
    return read_bundle(checkout)


@pytest.mark.parametrize("rule", RULES)
def test_jobs_that_are_added_keep_every_rule(grown: Bundle, rule: str) -> None:
    assert list(RULES[rule](grown)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("thing", ["app.py", "stanza", "event", "test"])
def test_each_of_the_four_things_is_needed(grown: Bundle, kind: str, thing: str) -> None:
    (test,) = (SCRATCH / kind).glob("test_*.py")
    job = Job(DOMAIN, test.stem.removeprefix("test_"))
    lacking = grown.copy()
    match thing:
        case "app.py":
            del lacking.files[f"functions/{DOMAIN}/{job.folder}/app.py"]
        case "stanza":
            del lacking.templates[DOMAIN].source["Resources"][job.logical_id]
        case "event":
            del lacking.files[f"events/{DOMAIN}/{job.folder}.json"]
        case "test":
            del lacking.files[f"tests/integration/{DOMAIN}/{test.name}"]
    assert [line for rule in RULES.values() for line in _lines(rule, lacking)]


def _lines(rule: Any, bundle: Bundle) -> list[str]:
    try:
        return list(rule(bundle))
    except KeyError as missing:  # a rule about a job's function, and there is none
        return [str(missing)]


def test_contributing_shows_the_scratch_jobs() -> None:
    shown = re.findall(r"^ {3}```(?:python|yaml)\n(.*?)^ {3}```$", _how_to(), re.MULTILINE | re.DOTALL)
    assert len(shown) == 3
    files = [path.read_text() for path in SCRATCH.glob("*/*") if path.is_file()]
    for block in shown:
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        assert any(all(line in text for line in lines) for text in files), block


def _how_to() -> str:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text()
    return page.partition("## Add a job\n")[2].partition("\n## ")[0]
