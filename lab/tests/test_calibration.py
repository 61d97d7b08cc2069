"""Calibrating with a few prompts beats attention."""

from __future__ import annotations

from hf_token_compress import load_tiny
from hf_token_compress.data.composed import SceneSource
from hf_token_compress.evaluation import scene_samples
from lab.benchmarks.calibration import measure_calibration, usable_prompts


def test_two_dozen_prompts_beat_attention() -> None:
    """On letters at 10 % of the tokens, where attention misses one in three."""
    prompts = usable_prompts(SceneSource(40, kinds=["letter", "colour"], seed=60_000), 24)
    results, seconds = measure_calibration(
        *load_tiny("qwen2-vl"),
        [prompts],
        scene_samples(["letter"], 32, seed=99_000),
        retention_ratios=[0.1],
    )
    assert [result.scorer for result in results] == [None, "attention", "calibrate, 24 prompts"]
    assert len(seconds) == 1
    full, attention, calibrated = (result.accuracy() for result in results)
    assert attention < calibrated <= full
