"""CHANGELOG.md keeps the form of keepachangelog.com, and agrees with the version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

import pytest
from packaging.version import Version
from places import REPOSITORY
from project_file import repository_address

from hf_token_compress import __version__

CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]

pytestmark = pytest.mark.core


@dataclass
class Section:
    """What is under one heading of the second level."""

    heading: str
    text: str

    @property
    def name(self) -> str:
        return self.heading.split(" - ")[0].strip("[]")

    @property
    def version(self) -> Version:
        return Version(self.name)


def sections() -> tuple[Section, list[Section]]:
    """What is unreleased, and the releases."""
    _, *parts = re.split(r"^## (?=\S)", CHANGELOG, flags=re.MULTILINE)
    unreleased, *releases = (Section(*part.split("\n", 1)) for part in parts)
    return unreleased, releases


UNRELEASED, RELEASES = sections()


def test_unreleased_changes_are_on_top() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    assert UNRELEASED.name == "Unreleased"


def test_releases_have_a_version_and_a_date_and_the_newest_comes_first() -> None:
    for release in RELEASES:
        assert re.fullmatch(r"\[?\d+\.\d+\.\d+\]? - \d{4}-\d\d-\d\d", release.heading)
    versions = [release.version for release in RELEASES]
    assert versions == sorted(set(versions), reverse=True)
    dates = [date.fromisoformat(release.heading.split(" - ")[1]) for release in RELEASES]
    assert dates == sorted(dates, reverse=True)


@pytest.mark.parametrize("section", [UNRELEASED, *RELEASES], ids=lambda section: section.name)
def test_changes_are_grouped_by_their_kind(section: Section) -> None:
    before, *groups = re.split(r"^### (?=\S)", section.text, flags=re.MULTILINE)
    assert before.strip() == ""
    kinds = [group.split("\n", 1)[0] for group in groups]
    assert kinds == [kind for kind in KINDS if kind in kinds]
    for group in groups:
        assert re.search(r"^- ", group, re.MULTILINE), group
    assert groups or section is UNRELEASED


def test_every_version_links_to_what_changed() -> None:
    """Once the repository has an address."""
    address = repository_address()
    links = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", CHANGELOG, re.MULTILINE))
    tags = [f"v{release.name}" for release in RELEASES]
    expected = {}
    if address is not None and tags:
        ends = ["HEAD", *tags]
        compared = zip(["Unreleased", *(tag[1:] for tag in tags)], ends, ends[1:], strict=False)
        expected = {name: f"{address}/compare/{old}...{new}" for name, new, old in compared}
        expected[tags[-1][1:]] = f"{address}/releases/tag/{tags[-1]}"
    assert links == expected
    for section in (UNRELEASED, *RELEASES):
        assert section.heading.startswith("[") == (section.name in links), section.heading


def test_the_version_is_the_newest_release_or_the_development_of_a_later_one() -> None:
    version = Version(__version__)
    newest = RELEASES[0].version if RELEASES else Version("0")
    if version.is_devrelease:
        assert __version__ == f"{version.base_version}.dev0"
        assert version > newest
    else:
        assert version == newest
        assert UNRELEASED.text.strip() == ""
