"""What is built holds what Lambda needs, in the form it needs, and nothing else."""

import hashlib
import importlib.util
import marshal
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Final

import pytest

from local.bundle import architecture
from local.home import CHECKOUT
from tests.packaging.functions import LAYERS, SOURCES, BuiltFunction, built_functions

MEGABYTE: Final = 1024 * 1024
MOST_UNZIPPED: Final = 250 * MEGABYTE  # of a function with its layers
MOST_LAYERS: Final = 5
UNCHECKED_HASH: Final = 0b01  # in a .pyc's flags: by the source's hash, which is not checked
MACHINES: Final = {"x86_64": 62, "arm64": 183}  # in an ELF file's header

each_function = pytest.mark.parametrize("function", built_functions(), ids=str)
each_layer = pytest.mark.parametrize("layer", LAYERS)


def stale(folder: Path) -> Iterator[str]:
    """Python sources below a folder that Lambda would compile at each cold start, or run in an older form."""
    for source in sorted(folder.rglob("*.py")):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        if not compiled.exists():
            yield f"{source.relative_to(folder)} is not compiled"
            continue
        header = compiled.read_bytes()[:16]
        if header[:4] != importlib.util.MAGIC_NUMBER:
            yield f"{source.relative_to(folder)} is compiled for another Python"
        elif struct.unpack("<I", header[4:8])[0] != UNCHECKED_HASH:
            yield f"{source.relative_to(folder)} is compiled to be checked against a time or a hash"
        elif header[8:16] != importlib.util.source_hash(source.read_bytes()):
            yield f"{source.relative_to(folder)} has changed since it was compiled"


def size(*folders: Path) -> int:
    """The size of all files below folders, in bytes."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def digest(folder: Path) -> str:
    """A digest of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def code_of(source: Path) -> CodeType:
    """What a source was compiled to."""
    code: CodeType = marshal.loads(Path(importlib.util.cache_from_source(str(source))).read_bytes()[16:])
    return code


def files(folder: Path) -> set[Path]:
    """All files below a folder but bytecode, by their paths from there."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if path.suffix != ".pyc"}


def packages(folder: Path) -> set[str]:
    """The distributions that are installed in a layer."""
    return {_normal(path.name.split("-")[0]) for path in folder.glob("python/*.dist-info")}


def pinned(requirements: Path) -> set[str]:
    """The distributions that a requirements file pins; none if there is no such file."""
    lines = requirements.read_text().splitlines() if requirements.exists() else []
    return {_normal(match[1]) for line in lines if (match := re.match(r"([A-Za-z0-9._-]+)(\[.*\])?==", line))}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@each_function
def test_function_starts_from_bytecode(function: BuiltFunction) -> None:
    assert list(stale(function.artifact)) == []


@each_layer
def test_layer_starts_from_bytecode(layer: str) -> None:
    assert list(stale(LAYERS[layer])) == []


def test_bytecode_that_lambda_cannot_use_is_noticed(tmp_path: Path) -> None:
    import py_compile

    source = tmp_path / "app.py"
    source.write_text("ANSWER = 42\n")
    assert list(stale(tmp_path)) == ["app.py is not compiled"]
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    assert list(stale(tmp_path)) == ["app.py is compiled to be checked against a time or a hash"]
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert list(stale(tmp_path)) == []
    source.write_text("ANSWER = 43\n")
    assert list(stale(tmp_path)) == ["app.py has changed since it was compiled"]


@each_function
def test_function_is_the_code_of_its_folder(function: BuiltFunction) -> None:
    folder = CHECKOUT / "functions" / function.job.domain / function.job.folder
    sources = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".py", ".sql")}
    built = function.artifact / "job"
    assert {path.name: path.read_text() for path in built.iterdir() if path.is_file()} == sources
    assert list(function.artifact.iterdir()) == [built]


@each_function
def test_function_is_within_lambdas_limits(function: BuiltFunction) -> None:
    assert len(function.layers) <= MOST_LAYERS
    assert size(function.artifact, *function.layers) < MOST_UNZIPPED


@each_layer
def test_layer_holds_what_is_pinned_and_nothing_else(layer: str) -> None:
    assert packages(LAYERS[layer]) == pinned(SOURCES[layer] / "requirements.txt")


@each_layer
def test_layer_is_the_same_in_every_domain(layer: str) -> None:
    """So it is stored once, in the bucket of artifacts and here: its bytecode names no folder in which it was built."""
    contents = {other: digest(LAYERS[other]) for other in LAYERS if SOURCES[other] == SOURCES[layer]}
    assert set(contents.values()) == {contents[layer]}


@each_function
def test_bytecode_names_lambdas_folders(function: BuiltFunction) -> None:
    for source in function.artifact.rglob("*.py"):
        assert code_of(source).co_filename == f"/var/task/{source.relative_to(function.artifact)}"


@each_layer
def test_bytecode_of_a_layer_names_lambdas_folders(layer: str) -> None:
    for source in LAYERS[layer].rglob("*.py"):
        assert code_of(source).co_filename == f"/opt/{source.relative_to(LAYERS[layer])}"


@pytest.mark.parametrize("layer", [name for name in LAYERS if name.endswith("/SchoolbellLayer")])
def test_schoolbell_is_in_its_layer_whole_but_for_the_command_line(layer: str) -> None:
    built, source = LAYERS[layer] / "python", CHECKOUT / "shared"
    expected = files(source)
    for_a_shell = {path for path in expected if path.parts[:2] == ("schoolbell", "cli")}
    assert for_a_shell
    assert files(built) == expected - for_a_shell


@each_layer
def test_layer_runs_on_the_processor_it_was_built_for(layer: str) -> None:
    for library in LAYERS[layer].rglob("*.so*"):
        header = library.read_bytes()[:20]
        assert header[:4] == b"\x7fELF", library
        assert struct.unpack("<H", header[18:20])[0] == MACHINES[architecture()], library
