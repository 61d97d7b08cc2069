"""What pyproject.toml says, for any Python: the standard library reads TOML only from 3.11 on."""

from __future__ import annotations

import re

from places import REPOSITORY

PYPROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def repository_address() -> str | None:
    """The address of the repository; None where it has none."""
    found = re.search(r'^Repository = "(\S+)"$', PYPROJECT, re.MULTILINE)
    return None if found is None else found[1]


def floor(distribution: str) -> str:
    """The oldest version of a distribution that the library takes."""
    found = re.search(rf'^  "{distribution}>=([\d.]+)', PYPROJECT, re.MULTILINE)
    assert found is not None, distribution
    return found[1]
