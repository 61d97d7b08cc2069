"""docs/support.md says what pyproject.toml promises and what continuous integration runs."""

from __future__ import annotations

import re

import pytest
from places import REPOSITORY
from project_file import PYPROJECT, floor

pytestmark = pytest.mark.core

PAGE = (REPOSITORY / "docs" / "support.md").read_text(encoding="utf-8")


def row(name: str) -> str:
    found = re.search(rf"^\| {name} \| (.*) \|$", PAGE, re.MULTILINE)
    assert found is not None, name
    return found[1]


def pythons(text: str) -> list[str]:
    return re.findall(r"\b3\.\d+\b", text)


def workflow(name: str) -> str:
    return (REPOSITORY / ".github" / "workflows" / name).read_text(encoding="utf-8")


def stage(name: str) -> str:
    return (REPOSITORY / ".ci" / "stages" / f"{name}.sh").read_text(encoding="utf-8")


def test_the_pythons_are_those_of_the_metadata_and_of_the_workflows() -> None:
    supported = pythons(row("Python").split(" | ")[0])
    classified = re.findall(r"Python :: (3\.\d+)", PYPROJECT)
    assert supported == classified
    assert f'requires-python = ">={supported[0]}"' in PYPROJECT
    assert f"PYTHON:-python{supported[0]}" in stage("core")
    (released,) = re.findall(r"python-version: \[(.*)\]", workflow("release.yml"))
    assert pythons(released) == supported
    jobs = re.search(r"^  check:\n(.*)^  systems:\n", workflow("ci.yml"), re.M | re.S)
    assert jobs is not None
    assert sorted(set(pythons(jobs[1])), key=supported.index) == supported


def test_the_oldest_transformers_is_the_one_that_is_run() -> None:
    oldest = floor("transformers")
    assert row("Transformers").startswith(f"{oldest} to ")
    assert f"the core suite with {oldest}" in row("Transformers")
    assert f"transformers=={oldest}.0" in stage("oldest_transformers")
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"oldest supported Transformers, {oldest}." in contributing


def test_the_torch_that_is_run_is_the_one_of_the_constraints() -> None:
    constraints = (REPOSITORY / "tests" / "constraints.txt").read_text(encoding="utf-8")
    pinned = re.search(r"^torch==(\S+)$", constraints, re.MULTILINE)
    assert pinned is not None
    assert row("torch").startswith(f"{floor('torch')} and later | every test with {pinned[1]}")
