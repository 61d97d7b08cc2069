"""What pyproject.toml says."""

from __future__ import annotations

import re

from places import REPOSITORY

PYPROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def repository_address() -> str | None:
    """The address of the repository; None where it has none."""
    found = re.search(r'^Repository = "(\S+)"$', PYPROJECT, re.MULTILINE)
    return None if found is None else found[1]
