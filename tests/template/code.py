"""What the code of a job can reach: the definitions that its `app.py` refers to, and those that these refer to.

It is read, not run. A definition is a function, a class or a constant at the top of a module; an import inside a
function is the function's. A method of a class that is reached counts if its name is read anywhere in what is reached.
What is imported but never used is not reached; a package that imports its modules by their names reaches them all.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Final

from botocore import xform_name
from botocore.session import get_session

PACKAGE: Final = "schoolbell"
ENTRYPOINT: Final = f"{PACKAGE}.entrypoint"
SHARED: Final = "shared/"
# By service as boto3 calls it, as IAM does.
IAM: Final = {
    "cloudformation": "cloudformation",
    "cloudwatch": "cloudwatch",
    "dynamodb": "dynamodb",
    "events": "events",
    "kms": "kms",
    "lambda": "lambda",
    "logs": "logs",
    "s3": "s3",
    "scheduler": "scheduler",
    "secretsmanager": "secretsmanager",
    "sesv2": "ses",
    "sns": "sns",
    "sqs": "sqs",
    "stepfunctions": "states",
    "sts": "sts",
}
# Operations that IAM knows by another name; a batch is what is in it.
OTHER_NAMES: Final = {"Invoke": "InvokeFunction", "TransactWriteItems": "UpdateItem"}  # all of its writes are updates
# What libraries ask for on behalf of who refers to these.
OF_LIBRARIES: Final = {
    "CircuitBreakerDynamoDBPersistence": {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"},
}

type Node = tuple[str, str]
"""A module and a name at its top."""


@dataclass
class _Module:
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, Node] = field(default_factory=dict)
    """By local name: a module and a name in it, or "" for the module itself."""


@dataclass(frozen=True)
class Reach:
    """What a job's code can reach."""

    attributes: frozenset[str]
    """The attributes that are read of anything, e.g. `archive_bucket`."""
    actions: frozenset[str]
    """What it may ask of AWS, as IAM calls it, e.g. `sqs:SendMessage`."""
    texts: frozenset[str]
    """The constants that are text, SQL included; docstrings are not."""
    given: frozenset[tuple[str, str]]
    """What is called with a text, and with which: `("provider_secret", "fcm")`, or by keyword `("job", "…")`."""
    names: frozenset[str]
    """The definitions, e.g. `schoolbell.jobs.scheduled.scheduled_job`."""


@cache
def reach(files: frozenset[tuple[str, str]], app: str) -> Reach:
    """What an `app.py` can reach in these files, by path and text."""
    shared = ((path, text) for path, text in files if path.startswith(SHARED) and path.endswith(".py"))
    known = {_module_name(path): _read(text) for path, text in shared}
    folder = app.rpartition("/")[0]
    for path, text in files:  # a function's modules import each other relatively, so they go by their own names here
        if path.rpartition("/")[0] == folder and path.endswith(".py"):
            known[PurePosixPath(path).stem] = _read(text)
    todo: list[Node] = [(module, name) for module in ("app", ENTRYPOINT) for name in known[module].definitions]
    seen: set[Node] = set()
    waiting: dict[str, list[tuple[str, ast.stmt]]] = {}  # methods of classes that are reached, by name
    found = _Found()

    def read(module: str, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ClassDef):
            for method in _methods(statement):
                waiting.setdefault(method.name, []).append((module, method))
            statement = _without_methods(statement)
        found.add(_found_in(statement))
        if _imports_its_modules(statement):
            inner = [each for each in known if each.startswith(f"{module}.")]
            todo.extend((each, name) for each in inner for name in known[each].definitions)
        todo.extend(_references(statement, module, known[module].imports | _imports_in(statement), known))

    while todo:
        module, name = node = todo.pop()
        if node not in seen and module in known:
            seen.add(node)
            todo.append((module, ""))  # what runs when it is imported
            for statement in known[module].definitions.get(name, ()):
                read(module, statement)
            if name in known[module].imports and name not in known[module].definitions:
                todo.append(_resolved(known[module].imports[name], known))
        if not todo:
            for method in [each for each in waiting if each in found.attributes or each.startswith("__")]:
                for module, statement in waiting.pop(method):
                    read(module, statement)
    modules = {module for module, _ in seen}
    folders = {
        app.rpartition("/")[0],
        *(f"{SHARED}{module.rpartition('.')[0].replace('.', '/')}" for module in modules),
    }
    found.texts.update(_sql(files, folders, found.texts))
    return Reach(
        frozenset(found.attributes),
        frozenset(found.actions),
        frozenset(found.texts),
        frozenset(found.given),
        frozenset(f"{module}.{name}" for module, name in seen if name),
    )


def _sql(files: Iterable[tuple[str, str]], folders: set[str], texts: set[str]) -> list[str]:
    """The SQL files beside the code that are named in it, with their ending or without."""
    named = ((path, text, PurePosixPath(path)) for path, text in files if path.endswith(".sql"))
    return [text for path, text, name in named if path.rpartition("/")[0] in folders and {name.name, name.stem} & texts]


def _module_name(path: str) -> str:
    parts = PurePosixPath(path.removeprefix(SHARED)).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _read(text: str) -> _Module:
    module = _Module()
    for statement in ast.parse(text).body:
        _declare(statement, module)
    return module


def _declare(statement: ast.stmt, module: _Module) -> None:
    match statement:
        case ast.FunctionDef(decorator_list=[ast.Call(func=ast.Attribute()), *_]):  # registered, e.g. `@app.get(…)`
            module.definitions.setdefault("", []).append(statement)
            module.definitions.setdefault(statement.name, []).append(statement)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            module.definitions.setdefault(name, []).append(statement)
        case ast.TypeAlias(name=ast.Name(id=name)) | ast.AnnAssign(target=ast.Name(id=name)):
            module.definitions.setdefault(name, []).append(statement)
        case ast.Assign(targets=targets):
            for target in targets:
                for name in (node.id for node in ast.walk(target) if isinstance(node, ast.Name)):
                    module.definitions.setdefault(name, []).append(statement)
        case ast.If(body=body, orelse=orelse):
            for inner in (*body, *orelse):
                _declare(inner, module)
        case ast.Import() | ast.ImportFrom():
            module.imports.update(_imports(statement))
        case ast.Expr(value=ast.Constant()):
            pass
        case _:
            module.definitions.setdefault("", []).append(statement)


@cache
def _imports_in(node: ast.AST) -> dict[str, Node]:
    return dict(_imports(node))


def _imports(node: ast.AST) -> Iterator[tuple[str, Node]]:
    """What is imported in a node, by local name; only the modules of one function import each other relatively."""
    for each in ast.walk(node):
        match each:
            case ast.ImportFrom(module=None, names=names):
                for alias in names:
                    yield alias.asname or alias.name, (alias.name, "")
            case ast.ImportFrom(module=str(source), names=names):
                for alias in names:
                    yield alias.asname or alias.name, (source, alias.name)
            case ast.Import(names=names):
                for alias in names:
                    yield alias.asname or alias.name, (alias.name, "")


def _methods(statement: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [each for each in statement.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]


@cache
def _without_methods(statement: ast.ClassDef) -> ast.ClassDef:
    rest = [each for each in statement.body if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return ast.ClassDef(
        statement.name, statement.bases, statement.keywords, rest, statement.decorator_list, type_params=[]
    )


@cache
def _imports_its_modules(statement: ast.stmt) -> bool:
    """Whether it says `import_module(f"{__name__}.…")`."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "import_module"
        and "__name__" in ast.unparse(node)
        for node in ast.walk(statement)
    )


def _resolved(target: Node, known: Mapping[str, _Module]) -> Node:
    """`from package import module` names a module, and not a name in the package."""
    module, name = target
    return (f"{module}.{name}", "") if name and f"{module}.{name}" in known else target


def _references(
    statement: ast.stmt, module: str, imports: Mapping[str, Node], known: Mapping[str, _Module]
) -> Iterator[Node]:
    for name, attribute, is_own in _mentions(statement):
        if name in imports:
            source, inner = _resolved(imports[name], known)
            yield (source, attribute) if attribute and not inner else (source, inner)
        elif name in known[module].definitions and not attribute and not is_own:
            yield module, name


@cache
def _mentions(statement: ast.stmt) -> frozenset[tuple[str, str, bool]]:
    """The names in a statement, each with what is read of it, if anything, and whether it is a function's own."""
    own = set(_own_names(statement)) if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) else set()
    found = set()
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                found.add((name, attribute, name in own))
            case ast.Name(id=name):
                found.add((name, "", name in own))
    return frozenset(found)


def _own_names(function: ast.AST) -> Iterator[str]:
    """The parameters and variables of a function, which hide what the module calls by the same names."""
    for node in ast.walk(function):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name


class _Found:
    def __init__(self) -> None:
        self.attributes: set[str] = set()
        self.actions: set[str] = set()
        self.texts: set[str] = set()
        self.given: set[tuple[str, str]] = set()

    def add(self, other: "_Found") -> None:
        self.attributes |= other.attributes
        self.actions |= other.actions
        self.texts |= other.texts
        self.given |= other.given

    def read(self, statement: ast.stmt) -> None:
        skipped = set(_docstrings(statement))
        for node in ast.walk(statement):
            match node:
                case ast.Attribute(attr=attribute):
                    self.attributes.add(attribute)
                case ast.keyword(arg=str(keyword), value=ast.Constant(value=str(text))):
                    self.given.add((keyword, text))
                case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str(text)), *_]):
                    self.given.add((method, text))
                case ast.Name(id=name) if name in OF_LIBRARIES:
                    self.actions.update(OF_LIBRARIES[name])
                case ast.Constant(value=str(text)) if node not in skipped:
                    self.texts.add(text)
        self.actions.update(_actions(statement))


@cache
def _found_in(statement: ast.stmt) -> _Found:
    found = _Found()
    found.read(statement)
    return found


def _docstrings(statement: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield from (each.value for each in node.body if isinstance(each, ast.Expr))


def _actions(statement: ast.stmt) -> Iterator[str]:
    """What is called on clients of AWS: on `aws.client("sqs")`, or on what is called a client."""
    clients = {
        target.id: service
        for node in ast.walk(statement)
        if isinstance(node, ast.Assign) and (service := _service(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(statement):
        match node:
            case ast.Call(
                func=ast.Attribute(value=base, attr="get_paginator"), args=[ast.Constant(value=str(operation))]
            ):
                pass
            case ast.Attribute(value=base, attr=operation):
                pass
            case _:
                continue
        service = _service(base) or (clients.get(base.id, "") if isinstance(base, ast.Name) else "")
        services = [service] if service else list(IAM) if _is_client(base) else []
        for each in services:
            if operation in _operations(each):
                yield _operations(each)[operation]


def _service(node: ast.AST) -> str:
    """The service of `aws.client("sqs")`, `aws.hasty_client("sqs", ...)` and the like."""
    match node:
        case ast.Call(
            func=ast.Attribute(attr="client" | "hasty_client") | ast.Name(id="client"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return name
    return ""


def _is_client(node: ast.AST) -> bool:
    """Whether this is called a client: `client`, `self._client`, `self._client()`."""
    inner = node.func if isinstance(node, ast.Call) else node
    name = inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""
    return name.lstrip("_") == "client"


@cache
def _operations(service: str) -> dict[str, str]:
    """A service's actions, by the names of boto3's methods."""
    model = get_session().get_service_model(service)
    return {xform_name(name): f"{IAM[service]}:{_action(name)}" for name in model.operation_names}


def _action(operation: str) -> str:
    if operation in ("BatchGetItem", "BatchWriteItem"):
        return operation
    plain = operation.removesuffix("Batch")
    return OTHER_NAMES.get(plain, plain)


def named_in(texts: Iterable[str], names: Iterable[str]) -> set[str]:
    """Which of the names are among the texts: as one, or quoted in SQL."""
    whole = set(texts)
    return {each for each in names if each in whole or any(f"'{each}'" in text for text in whole)}
