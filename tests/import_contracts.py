"""A kind of import contract that import-linter lacks: domains are found, so one that is added is held to it too."""

from collections.abc import Iterator
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class DomainsContract(Contract):
    """Code of a domain imports no code of another.

    Options:
        packages: the packages that have a package for each domain.
    """

    type_name = "domains"

    packages = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        strangers = sorted(self._strangers(graph))
        return ContractCheck(kept=not strangers, metadata={"strangers": strangers})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["strangers"]:
            output.print_error(f"{importer} imports {imported}")

    def _strangers(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        for importer in graph.modules:
            domain = self._domain_of(importer)
            for imported in graph.find_modules_directly_imported_by(importer) if domain else ():
                if self._domain_of(imported) not in (None, domain):
                    yield importer, imported

    def _domain_of(self, module: str) -> str | None:
        packages: Any = self.packages
        for package in packages:
            if module.startswith(f"{package}."):
                return module.removeprefix(f"{package}.").partition(".")[0]
        return None
