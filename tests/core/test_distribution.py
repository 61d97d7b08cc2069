"""The installed wheel holds the library alone, and is small."""

from __future__ import annotations

import zlib
from importlib import metadata
from pathlib import Path

import pytest

import hf_token_compress

FILES = metadata.files("hf-token-compress") or []
INSTALLED = {Path(str(file.locate())) for file in FILES}

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(
        Path(hf_token_compress.__file__) not in INSTALLED,
        reason="the library is not installed from a wheel",
    ),
]


def test_the_laboratory_and_the_tests_are_not_installed() -> None:
    outside = {"lab", "tests", "benchmarks", "notebooks", "docs"}
    assert not {part for file in FILES for part in file.parts} & outside


def test_the_wheel_is_at_most_24_megabytes() -> None:
    """A wheel is a ZIP archive, which compresses each file as `zlib` does."""
    library = [file for file in FILES if file.parts[0] == "hf_token_compress"]
    sizes = [len(zlib.compress(file.read_binary())) for file in library if file.suffix != ".pyc"]
    assert sum(sizes) <= 24e6
