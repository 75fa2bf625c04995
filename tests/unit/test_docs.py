"""Every page is on a shelf of docs/README.md, and every link between files leads somewhere."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)\s]*)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return LINK.findall(prose(page))


@cache
def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    names: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(prose(page)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
        found.add(f"{name}-{names[name]}" if names[name] else name)
        names[name] += 1
    return found


def broken(page: Path) -> list[str]:
    gone = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            gone.append(link)
    return gone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("folder", [DOCS, DOCS / "decisions"], ids=lambda folder: folder.name)
def test_each_page_of_a_folder_is_in_its_index_once(folder: Path) -> None:
    listed = Counter(link for link in links(folder / "README.md") if not link.startswith(".."))
    pages = {page.name for page in folder.glob("*.md")} - {"README.md"}
    pages |= {f"{page.parent.name}/README.md" for page in folder.glob("*/README.md")}
    assert {name for name in listed if name.endswith(".md")} == pages
    assert [name for name, times in listed.items() if times > 1] == []


def test_a_link_to_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `page`, of two\n[a](#a-page-of-two) [b](#elsewhere) [c](gone.md) [d](page.md#b) [e](https://x.y)"
    )
    assert broken(page) == ["#elsewhere", "gone.md", "page.md#b"]
