"""Links within the repository lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import REPOSITORY

PAGES = sorted(
    path
    for folder in (".", "docs", "docs/reference", "notebooks", "examples", "lab", ".github")
    for path in (REPOSITORY / folder).glob("*.md")
) + sorted((REPOSITORY / "hf_token_compress/tiny").glob("*/README.md"))

each_page = pytest.mark.parametrize(
    "path", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix()
)


def without_code(path: Path) -> str:
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code(path), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


@each_page
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", without_code(path)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_no_placeholder_address(path: Path) -> None:
    assert "OWNER" not in path.read_text(encoding="utf-8")


def test_the_readme_is_short_and_has_the_test_command() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    start = lines.index("## Test")
    fence = lines.index("```bash", start)
    assert lines[fence + 2] == "```"
    assert "pytest tests" in lines[fence + 1]
