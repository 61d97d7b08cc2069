"""What builds the documentation site: rewritten links, and the check of the built pages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from places import REPOSITORY

DOCS = REPOSITORY / "docs"
ADDRESS = "https://example.org/project"


def load(name: str) -> ModuleType:
    """A file of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"site/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("usage.md", "speed.md#on-a-cpu", "speed.md#on-a-cpu"),
        ("usage.md", "#positions", "#positions"),
        ("usage.md", "https://arxiv.org/abs/1", "https://arxiv.org/abs/1"),
        ("usage.md", "../lab/LOG.md#a", f"{ADDRESS}/blob/main/lab/LOG.md#a"),
        ("usage.md", "../lab/leaderboard", f"{ADDRESS}/tree/main/lab/leaderboard"),
        ("usage.md", "../CHANGELOG.md", "changelog.md"),
        ("reference/mapper.md", "../mapper.md", "../mapper.md"),
        ("reference/mapper.md", "../../CONTRIBUTING.md", "../contributing.md"),
        ("reference/mapper.md", "../../README.md", f"{ADDRESS}/blob/main/README.md"),
        ("contributing.md", "docs/families.md", "families.md"),
        ("contributing.md", "lab/parts.txt", f"{ADDRESS}/blob/main/lab/parts.txt"),
    ],
)
def test_links_lead_to_the_site_or_to_the_repository(page: str, link: str, expected: str) -> None:
    links = load("hooks").site_links
    assert links(f"See [`a` [b]]({link}).", page, ADDRESS) == f"See [`a` [b]]({expected})."
    code = f"```text\n[a]({link})\n```\n"
    assert links(code, page, ADDRESS) == code


def test_without_an_address_only_the_text_of_outside_links_stays() -> None:
    text = "[diary](../lab/LOG.md), [speed](speed.md), ![plot](images/plot.png)"
    expected = "diary, [speed](speed.md), ![plot](images/plot.png)"
    assert load("hooks").site_links(text, "usage.md", None) == expected


def test_the_check_finds_what_leads_nowhere(tmp_path: Path) -> None:
    problems = load("check").problems
    (tmp_path / "usage").mkdir()
    (tmp_path / "usage/index.html").write_text('<h2 id="here">Here</h2>')
    (tmp_path / "plot.svg").touch()
    good = (
        '<a href="usage/#here">a</a> <a href="#top" id="top">b</a> <a href="https://a.org">c</a>'
        '<img src="plot.svg" alt="A plot"><link rel="canonical" href="https://a.org">'
    )
    index = tmp_path / "index.html"
    index.write_text(good)
    assert list(problems(tmp_path)) == []
    for bad in (
        '<a href="usage/#there">a</a>',
        '<a href="nowhere/">a</a>',
        '<img src="lost.png" alt="A plot">',
        '<img src="plot.svg">',
        '<script src="https://cdn.org/a.js"></script>',
    ):
        index.write_text(good + bad)
        load_again = load("check").problems  # it keeps the pages that it has read
        assert len(list(load_again(tmp_path))) == 1, bad


def test_the_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert [page for page in sorted(pages) if f"]({page})" not in index] == []
