"""The tables that `evaluate` prints."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from retention_results import retention_result
from rich.console import Console

from hf_token_compress.cli.evaluate_table import kinds_tables, print_evaluation, rich_table
from hf_token_compress.data.scenes import KINDS
from hf_token_compress.evaluation import Evaluation
from hf_token_compress.evaluation.retention import named_kinds
from hf_token_compress.evaluation.table import agreement_table, cost_table, table_rows

RESULTS = [
    retention_result(scorer, kept, dict.fromkeys(KINDS, right), dict.fromkeys(KINDS, 200))
    for scorer, kept, right in (
        (None, 1.0, 200),
        ("attention", 0.25, 93),
        ("mapper:" + "folder/" * 12, 0.25, 187),
    )
]


def lines_of(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "count"), [(60, 4), (200, 1)])
def test_no_heading_and_no_figure_of_a_kind_is_cut(width: int, count: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    tables = kinds_tables(RESULTS, named_kinds(RESULTS[0]), console)
    assert len(tables) == count
    for table in tables:
        console.print(table)
    lines = lines_of(console)
    assert max(map(len, lines)) <= width
    headings = [word for line in lines if "scorer" in line for word in line.split()]
    assert [word for word in headings if word not in ("scorer", "kept")] == list(KINDS)
    cells = [cell for line in lines if "attention" in line for cell in line.split()[2:]]
    assert cells == ["46.5"] * len(KINDS)


def test_names_of_kinds_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are not markup, and questions without a kind are not called "all"."""
    right = {"[/list]": 1, "all": 0}
    found = Evaluation((retention_result(None, 1.0, right, dict.fromkeys(right, 2)),))
    for markdown in (False, True):
        print_evaluation("model", found, table_rows(found), markdown=markdown)
        shown = capsys.readouterr()
        (heading,) = (line for line in shown.out.splitlines() if "[/list]" in line)
        assert heading.replace("|", " ").split()[:5] == [
            "scorer",
            "kept",
            "[/list]",
            "(no",
            "kind)",
        ]
        assert markdown or "2 [/list]" in shown.err


def test_the_differences_are_whole_at_80_columns() -> None:
    rows = table_rows(Evaluation(tuple(RESULTS)))
    console = Console(file=io.StringIO(), width=80)
    for own in (cost_table(rows), agreement_table(rows)):
        console.print(rich_table(own, console))
    lines = lines_of(console)
    assert max(map(len, lines)) <= 80
    (cost, same) = (line for line in lines if "attention" in line)
    # 750 of 1,400 questions are lost: the standard error is 1.33 points.
    assert cost.split()[:6] == ["attention", "100", "(25%)", "46.5", "46.5", "-53.5"]
    low, high = (float(text.strip("[],")) for text in cost.split()[6:8])
    assert low == pytest.approx(-53.5 - 1.96 * 1.333, abs=0.4)
    assert high == pytest.approx(-53.5 + 1.96 * 1.333, abs=0.4)
    assert cost.split()[-1] == "<.001"
    assert same.split()[3] == "46.5"


def test_no_figure_and_no_short_name_is_cut_in_a_narrow_terminal() -> None:
    rows = table_rows(Evaluation(tuple(RESULTS[:2])))
    shown = []
    for width in (200, 60):
        console = Console(file=io.StringIO(), width=width)
        console.print(rich_table(cost_table(rows), console))
        assert max(map(len, lines_of(console))) <= width
        shown.append(sorted(word for line in lines_of(console)[3:] for word in line.split()))
    wide, narrow = ([word for word in words if "─" not in word] for words in shown)
    assert [word for word in narrow if word in wide] == wide
    assert "attention" in narrow


def test_questions_that_smaller_images_lose_are_told_apart() -> None:
    """Of ten questions the model answers eight, and from down-sampled images six of these."""
    full, attention = (
        retention_result(scorer, kept, {"all": right}, {"all": 10})
        for scorer, kept, right in ((None, 1.0, 8), ("attention", 0.25, 7))
    )
    smaller = replace(
        retention_result("x", 0.25, {"all": 6}, {"all": 10}),
        setting=replace(attention.setting, scorer=None, downsampled=True),
    )
    rows = table_rows(Evaluation((full, attention, smaller)))
    assert rows[1]["downsampling"] == {
        "still_answered": {"asked": 6, "accuracy": 1.0},
        "lost": {"asked": 2, "accuracy": 0.5},
    }
    assert rows[0]["downsampling"] is rows[2]["downsampling"] is None
    assert rows[2]["name"] == "(down-sampled, 25 %)"
