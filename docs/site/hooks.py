"""What the documentation site adds to the Markdown files of the repository.

Relative links that leave `docs/` work on GitHub. On the site they lead to the repository's address,
which is `Repository` under `[project.urls]` in pyproject.toml, as for the notebooks. Without an
address their text stays, without a link. `Documentation` there is the site's own address.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomllib

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository's root that are pages of the site."""

_FENCES = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def addresses() -> dict[str, str]:
    """The project's addresses by name."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["urls"]


def on_config(config: MkDocsConfig) -> None:
    """Take the addresses of the site and of the repository."""
    config.site_url = addresses().get("Documentation")
    if repository := addresses().get("Repository"):
        config.extra["social"] = [{"icon": "fontawesome/brands/git-alt", "link": repository}]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add pages that lie outside `docs/`."""
    from mkdocs.structure.files import File

    for source, page in ROOT_PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite the links of a page that leave `docs/`."""
    return site_links(markdown, page.file.src_uri, addresses().get("Repository"))


def site_links(markdown: str, page: str, repository: str | None) -> str:
    """Markdown whose relative links are those of the site.

    Args:
        markdown: A page as it lies in the repository.
        page: Its path on the site, such as "reference/mapper.md".
        repository: The repository's address; None leaves links to its files out.
    """
    folder = posixpath.dirname(f"docs/{page}")
    if page in ROOT_PAGES.values():
        folder = ""

    def rewrite(found: re.Match[str]) -> str:
        text, link, anchor = found[1], found[2], found[3] or ""
        target = posixpath.normpath(posixpath.join(folder, link))
        inside = ROOT_PAGES.get(target)
        if target.startswith("docs/"):
            inside = target.removeprefix("docs/")
        if inside is not None:
            return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(page) or '.')}{anchor})"
        if repository is None:
            return text
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"[{text}]({repository.rstrip('/')}/{kind}/main/{target}{anchor})"

    parts = _FENCES.split(markdown)  # code at odd places
    return "".join(part if i % 2 else _LINK.sub(rewrite, part) for i, part in enumerate(parts))
