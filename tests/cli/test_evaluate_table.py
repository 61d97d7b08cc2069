"""The table that `evaluate` prints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hf_token_compress.cli.evaluate import _tables
from hf_token_compress.data.scenes import KINDS
from hf_token_compress.evaluation import RetentionResult
from hf_token_compress.evaluation.retention import named_kinds

RESULTS = [
    RetentionResult(scorer, 0.25, 0.25, dict.fromkeys(KINDS, right), dict.fromkeys(KINDS, 200))
    for scorer, right in ((None, 200), ("attention", 93), ("mapper:" + "folder/" * 12, 187))
]


def printed(width: int) -> tuple[int, list[str]]:
    """How many tables fit the width, and their lines."""
    console = Console(file=io.StringIO(), width=width)
    tables = _tables(RESULTS, named_kinds(RESULTS[0]), console)
    for table in tables:
        console.print(table)
    return len(tables), console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "count"), [(80, 3), (200, 1)])
def test_no_heading_and_no_figure_is_cut(width: int, count: int) -> None:
    tables, lines = printed(width)
    assert tables == count
    assert max(map(len, lines)) <= width
    headings = [word for line in lines if "Scorer" in line for word in line.split("┃")]
    headings = [word.strip() for word in headings if word.strip()]
    assert [word for word in headings if word not in ("Scorer", "Kept")] == [*KINDS, "All"]
    rows = [line.split("│") for line in lines if "attention" in line]
    cells = [cell.strip() for row in rows for cell in row[3:-1]]
    assert cells == ["46.5"] * len(KINDS) + ["46.5 ± 1.3"]
