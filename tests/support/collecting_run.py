"""Collect, train and calibrate as users do under `accelerate launch`.

Every argument is a run: a folder for the collection, and if wanted one for the training and one for
the calibration, separated as in PATH. "RANK" in the last two stands for the number of the process.
"""

from __future__ import annotations

import os
import sys

import torch

from hf_token_compress import load_tiny
from hf_token_compress.data.composed import SceneSource
from hf_token_compress.training.calibration import calibrate
from hf_token_compress.training.collect import CollectOptions, collect
from hf_token_compress.training.distributed import process_state
from hf_token_compress.training.shards import ShardFolder
from hf_token_compress.training.train import TrainOptions, train_mapper

SCENES = SceneSource(21, seed=500)
COLLECT = CollectOptions(
    rule="edges_absolute", targets="sum", max_new_tokens=8, batch_size=3, shard_size=3
)
TRAIN = TrainOptions(
    network_options={"channels": 8, "blocks": 1},
    epochs=3,
    train_batch_size=7,
    validation_fraction=0.2,
)


def collect_scenes(folder: str, **options: object) -> ShardFolder | None:
    model, processor = load_tiny("qwen2-vl")
    return collect(model, processor, SCENES, folder, COLLECT, **options)


def run(folders: list[str]) -> None:
    collection = collect_scenes(folders[0])
    if len(folders) > 1:
        assert collection is not None
        train_mapper(collection, folders[1], TRAIN)
    if len(folders) > 2:
        prompts = [SCENES[number] for number in range(4)]
        options = {"collect_options": COLLECT, "train_options": TRAIN}
        calibrate(*load_tiny("qwen2-vl"), prompts, **options).save_pretrained(folders[2])


if __name__ == "__main__":
    torch.set_num_threads(1)
    state = process_state()
    sys.stdout.write(f"{state.process_index} of {state.num_processes}\n")
    for argument in sys.argv[1:]:
        run(argument.replace("RANK", str(state.process_index)).split(os.pathsep))
