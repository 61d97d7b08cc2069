"""Repetitions of a recommendation, each checked on questions that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.evaluation.recommend import Measured
from lab.benchmarks.recommendations import Pool, main, repetitions

RATIOS = (0.5, 0.25, 0.1)


def pool_with(*lost: float, questions: int = 2000) -> Pool:
    """One scorer's settings, each losing every answer with a probability of its own."""
    generator = np.random.default_rng(0)
    full = np.ones(questions)
    settings = [
        Measured(
            TokenCompressionConfig(retention_ratio=ratio, scorer="random"),
            ratio,
            full,
            (generator.random(questions) >= share).astype(float),
        )
        for ratio, share in zip(RATIOS, lost, strict=True)
    ]
    return Pool(full, {"random": settings})


def test_the_table_implies_the_last_setting_before_a_loss_beyond_the_limit() -> None:
    pool = pool_with(0.0, 0.2, 0.01)
    assert pool.implied(5).retention_ratio == 0.5
    assert pool.implied(50).retention_ratio == 0.1
    assert pool_with(0.2, 0.2, 0.2).implied(5) is None


def test_a_repetition_is_checked_on_all_questions_but_its_own() -> None:
    """What the first repetition draws is answered, and nothing else."""
    pool = pool_with(0.0, 0.0, 0.0, questions=1000)
    drawn = np.random.default_rng(0).permutation(1000)[:200]
    for item in pool.sequences["random"]:
        item.compressed[:] = np.isin(np.arange(1000), drawn)
    first, *others = repetitions(pool, count=5, questions=200, max_loss=5, confidence=0.95)
    assert first[0].chosen.config.retention_ratio == 0.1
    assert first[1] == 100
    assert all(found.chosen is None and fresh is None for found, fresh in others)


def test_bounds_hold_on_fresh_questions_of_a_known_loss() -> None:
    found = list(
        repetitions(
            pool_with(0.005, 0.02, 0.3, questions=6000),
            count=20,
            questions=300,
            max_loss=5,
            confidence=0.95,
        )
    )
    chosen = [(item.chosen, fresh) for item, fresh in found if item.chosen is not None]
    assert len(chosen) >= 15
    assert sum(fresh <= 5 for _, fresh in chosen) >= len(chosen) - 1


def test_a_second_run_asks_nothing_and_prints_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--images",
        "24",
        "--repetitions",
        "2",
        "--questions",
        "12",
        "--max-loss",
        "60",
        "--scorer",
        "mapper",
    ]
    command += ["--retention-ratio", "0.5,0.05", "--answers", str(tmp_path / "answers.jsonl")]
    main(command)
    first, size = capsys.readouterr().out, (tmp_path / "answers.jsonl").stat().st_size
    assert first.endswith("From all questions, the recommendation is that of the table.\n")
    main(command)
    assert capsys.readouterr().out == first
    assert (tmp_path / "answers.jsonl").stat().st_size == size
