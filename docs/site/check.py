"""Check the built site: links, anchors and images lead somewhere, and no page asks other servers.

Run it after `mkdocs build`: `python docs/site/check.py build/site`. It sends no request.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NOT_LOADED = {"canonical", "next", "prev"}


class _Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.without_text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {value for name, value in attrs if name in ("id", "name") and value}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        if tag == "link" and values.get("rel") not in _NOT_LOADED:
            self.loaded.append(values.get("href") or "")
        if tag in ("img", "script", "source", "iframe", "video") and values.get("src"):
            self.loaded.append(values["src"] or "")
        if tag == "img" and not values.get("alt"):
            self.without_text.append(values.get("src") or "")


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(site: Path) -> Iterator[str]:
    """One line for everything that is wrong with a built site."""
    pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    if not pages:
        yield f"{site} holds no pages: build the site first."
    for path in pages:
        page = _read(path.resolve())
        where = path.relative_to(site).as_posix()
        yield from (f"{where}: image {source} has no alt text" for source in page.without_text)
        for address in page.loaded:
            if urlsplit(address).netloc:
                yield f"{where}: {address} is loaded from another server"
        for address in dict.fromkeys(page.links + page.loaded):
            if problem := _broken(address, path):
                yield f"{where}: {address} {problem}"


def _broken(address: str, path: Path) -> str | None:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    target = path.parent / unquote(parts.path) if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "does not exist"
    is_page = target.suffix == ".html"
    if is_page and parts.fragment and unquote(parts.fragment) not in _read(target.resolve()).ids:
        return "has no such anchor"
    return None


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    print("\n".join([*found, f"{len(found)} problems"]))
    sys.exit(bool(found))
