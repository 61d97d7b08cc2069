"""The leaderboard: stopped runs, figures from known answers, and seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from hf_token_compress.evaluation import FULL
from hf_token_compress.tiny import own_mapper
from lab.leaderboard.figures import cells_ahead, figures, mean_figures, worst_cell
from lab.leaderboard.page import END, START, write_page
from lab.leaderboard.results import SubjectResults, collected, restored
from lab.leaderboard.rows import FULL_ROW, ROWS
from lab.leaderboard.running import Run, answers_file, run_all
from lab.leaderboard.subjects import SUBJECTS

TINY = SUBJECTS[0]
BY_NAME = {row.name: row for row in ROWS}
DEFAULT = "gated_fusion, diverse"
KINDS = ["place", "colour"]
RIGHT = {
    FULL_ROW: "11111110",
    DEFAULT: "11110110",
    "random": "10100000",
    "uniform": "01110000",
    "divprune": "1011",  # was asked half of the questions
}
"""Right answers to questions of the two kinds in turn."""


def write_answers(folder: Path) -> None:
    """The answers of `RIGHT` at 25 %, as a run writes them; every question has its own image."""
    file = answers_file(folder, "choosing", TINY)
    file.parent.mkdir(parents=True)
    lines = [{"data": {"stream": "choosing", "kinds": KINDS}}]
    for name, right in RIGHT.items():
        key = (FULL if name == FULL_ROW else BY_NAME[name].setting(0.25, None)).key
        answers = [
            {
                "number": number,
                "kind": KINDS[number % 2],
                "visual": f"image {number}",
                "score": float(bit),
                "visual_tokens_after": 64 if name == FULL_ROW else 16,
            }
            for number, bit in enumerate(right)
        ]
        lines += [{"setting": key, "answers": [own]} for own in answers]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"setting": "unfin')


def known(folder: Path) -> SubjectResults:
    write_answers(folder)
    (own,) = restored(collected(folder, "choosing"))
    return own


def test_figures_are_those_computed_by_hand(tmp_path: Path) -> None:
    subject = known(tmp_path)
    own = figures(subject, (DEFAULT, 0.25), DEFAULT)
    assert own is not None
    assert (own.asked, own.accuracy, own.tokens, own.difference) == (8, 0.75, 16, None)
    assert own.percent_of_full.value == pytest.approx(100 * 6 / 7)
    # The default has all of the four questions that this row was asked, the full model too.
    few = figures(subject, ("divprune", 0.25), DEFAULT)
    assert few is not None
    assert few.difference is not None
    assert (few.asked, few.accuracy, few.difference.value) == (4, 0.75, -0.25)
    assert few.percent_of_full.value == pytest.approx(75)
    assert figures(subject, ("hawk", 0.25), DEFAULT) is None
    percent, difference = mean_figures([own, own]) or (0.0, None)
    assert (percent, difference) == (pytest.approx(100 * 6 / 7), None)
    assert mean_figures([own, None]) is None


def test_a_mean_of_equal_subjects_has_an_interval_narrower_by_the_root(tmp_path: Path) -> None:
    own = figures(known(tmp_path), ("random", 0.25), DEFAULT)
    assert own is not None
    assert own.difference is not None
    mean = mean_figures([own] * 4)
    assert mean is not None
    assert mean[1] is not None
    assert mean[1].value == own.difference.value == -0.5
    assert mean[1].high - mean[1].value == pytest.approx(
        (own.difference.high - own.difference.value) / 2
    )


def test_cells_are_compared_with_the_better_control(tmp_path: Path) -> None:
    """On *place* random has two of four and uniform one, on *colour* none and two."""
    subject = known(tmp_path)
    worst = worst_cell([subject], (DEFAULT, 0.25))
    assert worst is not None
    assert (worst.cells, worst.behind) == (2, 0)
    assert (worst.cell.kind, worst.cell.against) == ("place", "random")
    assert worst.cell.difference.value == 0.25  # three of four, against two
    ahead = list(cells_ahead([subject], ("random", 0.25), ["uniform", DEFAULT]))
    assert [(own.kind, own.against, own.difference.value) for own in ahead] == [
        ("place", DEFAULT, 0.25),
        ("colour", DEFAULT, 0.75),
    ]


def test_the_page_is_made_from_the_json_file_alone(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "choosing.json"
    page.write_text(f"# Title\n\n{START}\nold\n{END}\n\nThe end.\n")
    write_answers(tmp_path)
    write_page(page, file, DEFAULT, tmp_path, "choosing")
    first = page.read_text()
    row = f"| {DEFAULT} | 25 % | 16 | 8 | 75.0 | 85.7 ["
    assert row in first
    assert first.endswith(f"{END}\n\nThe end.\n")
    write_page(page, file, DEFAULT, None, "choosing")
    assert page.read_text() == first
    with pytest.raises(ValueError, match="stream 'choosing'"):
        write_page(page, file, DEFAULT, None, "reporting")


def test_a_stopped_run_ends_with_the_answers_of_an_uninterrupted_one(tmp_path: Path) -> None:
    subject = dataclasses.replace(TINY, per_kind=1, per_kind_of_others=1)
    rows = (BY_NAME[DEFAULT], BY_NAME["mapper"])
    whole, parts = (
        Run(tmp_path / name, "choosing", (subject,), rows, batch_size=5)
        for name in ("whole", "parts")
    )
    assert run_all(whole).hours_left() == 0
    sizes = []
    for limit in (0, 0, None):  # the first two stop after one batch
        run_all(parts, limit)
        sizes.append(parts.file(subject).stat().st_size)
    assert sizes == sorted(set(sizes))
    answers = collected(whole.folder, "choosing")
    assert answers == collected(parts.folder, "choosing")
    assert set(answers["subjects"][0]["rows"]) == {FULL_ROW, DEFAULT, "mapper"}


def test_a_mapper_is_asked_about_what_it_was_trained_for_alone() -> None:
    clips = next(own for own in SUBJECTS if own.name == "testbed clips")
    drawings = next(own for own in SUBJECTS if own.name == "testbed drawings")
    of_images = own_mapper("tiny-qwen2-vl")
    run = Run(Path(), "choosing", (drawings, clips), testbed_mapper=of_images)
    asked = [(own.subject, row) for own in run.tasks() for row, _ in own.settings]
    mapped = {subject for subject, row in asked if row.scorer == "mapper"}
    assert mapped == {drawings}


def test_no_two_streams_share_an_image() -> None:
    """A subject needs at most 200 images per question: then its generator gives up."""
    for subject in SUBJECTS:
        assert subject.choosing + 200 * subject.per_kind < 8_000_000 <= subject.reporting
    reporting = sorted((own.reporting, own.reporting + 200 * own.per_kind) for own in SUBJECTS)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(reporting))
