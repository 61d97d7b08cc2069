"""When an answer counts as right."""

from __future__ import annotations

from typing import Any

import pytest

from hf_token_compress.data.answers import is_right


@pytest.mark.parametrize(
    ("given", "right", "match", "expected"),
    [
        ("Cat.", "cat", "exact", True),
        ("a cat", "cat", "exact", False),
        ("a cat", "Cat", "contains", True),
        ("cat", "a cat", "contains", False),
        ("a cat", "", "contains", False),
        ("a cat", " . ", "contains", False),
        ("", "", "exact", False),
        ("3", "three", lambda given, right: {"three": "3"}[right] == given, True),
    ],
)
def test_right_answers(given: str, right: str, match: Any, expected: bool) -> None:
    assert is_right(given, right, match) is expected
