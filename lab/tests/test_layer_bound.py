"""Collections of the ground truth."""

from __future__ import annotations

from pathlib import Path

from hf_token_compress import load_tiny
from hf_token_compress.evaluation import clip_samples
from hf_token_compress.training.shards import ShardFolder
from lab.benchmarks.layer_bound import collect_truth


def test_the_truth_of_clips_is_collected(tmp_path: Path) -> None:
    """Of each clip, the 2 x 2 tokens of one cell in the one joined frame that shows it."""
    samples = clip_samples(["first", "last"], 3, frames=2, frames_per_scene=2, split="mapper")
    collect_truth(*load_tiny("qwen2-vl"), samples, tmp_path)
    collection = ShardFolder(tmp_path)
    assert collection.collection["options"]["modality"] == "video"
    for place, sample in enumerate(samples):
        (grid,) = collection[place].grids
        frames = collection[place].relevance[grid].sum(dim=(1, 2))
        assert frames.tolist() == {"first": [4.0, 0.0], "last": [0.0, 4.0]}[sample.kind]
