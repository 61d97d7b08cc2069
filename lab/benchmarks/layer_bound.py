"""Collect the ground truth as relevance, to see how good a mapper on one layer's attention can be.

    python -m lab.benchmarks.layer_bound --model tiny-qwen2-vl --output truth
    python -m lab.benchmarks.layer_bound --model testbed --data questions.jsonl --output truth
    hf-token-compress train --collection truth --output bound
    hf-token-compress evaluate --scorer mapper:bound,mapper

The mapper trained on it is an upper bound for mappers with this input: what it misses is not in the
attention, or needs a larger network. The gap to a mapper trained on relevance is the error of the
relevance rule. `--scoring-depth` takes the attention of a deeper layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.composed import clip_samples, scene_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import CLIP_KINDS, KINDS
from hf_token_compress.data.sources import JsonLines, SampleSource
from hf_token_compress.evaluation.truth import has_ground_truth, true_relevance
from hf_token_compress.mapper.inputs import INPUTS
from hf_token_compress.prompt import Modality
from hf_token_compress.scorers.mapper_inputs import mapper_inputs
from hf_token_compress.training.collect import CollectOptions
from hf_token_compress.training.shards import (
    COLLECTION_FILE,
    CollectedSample,
    Shard,
    shard_path,
    write_index,
    write_shard,
)
from hf_token_compress.writing import write_json

from ..arguments import add_model, add_questions, make_parser, positive
from ..loading import load_model

_SPLIT = "mapper"
_BATCH = 32


@torch.no_grad()
def collect_truth(
    model: Any,
    processor: Any,
    samples: Sequence[Sample] | SampleSource,
    folder: Path,
    *,
    scoring_depth: int = 0,
    name: str | None = None,
) -> None:
    """Write a collection whose relevance is 1 for the tokens an answer depends on, else 0.

    Questions whose answer depends on no particular region, or on an unknown one, are left out.

    Args:
        model: A loaded model of a supported family.
        processor: Its processor.
        samples: The questions, each about one image or each about one clip.
        folder: Where to write.
        scoring_depth: Decoder layers before the one whose attention is collected.
        name: Name of the model, for the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    modality: Modality = samples[0].modality
    options = CollectOptions(modality=modality, rule="truth", scoring_depth=scoring_depth)
    shards: list[Path] = []
    for start in range(0, len(samples), _BATCH):
        batch = [samples[number] for number in range(start, min(start + _BATCH, len(samples)))]
        prompt, layer = read_prompt(
            model, encode_samples(processor, batch), scoring_depth=scoring_depth
        )
        shard = Shard()
        inputs = mapper_inputs(prompt, layer, modality)
        for index, (sample, seen) in enumerate(zip(batch, inputs, strict=True)):
            if seen is None or not has_ground_truth(sample):
                continue
            (visual,) = prompt.visuals[index]
            relevance = true_relevance(sample, visual)
            if relevance.any():
                shard.samples.append(CollectedSample.of(start + index, seen, relevance))
        shards.append(shard_path(folder, len(shards)))
        write_shard(shards[-1], shard)
    if isinstance(samples, SampleSource):
        data = samples.describe()
    else:
        source = "clips" if modality == "video" else "scenes"
        data = {"source": source, "samples": len(samples), "split": _SPLIT}
    settings = {
        "base_model": identify(model, name).to_dict(),
        "data": data,
        "options": options.to_dict(),
        "inputs": INPUTS,
    }
    write_json(folder / COLLECTION_FILE, settings)
    write_index(folder, shards)


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect the ground truth."""
    parser = make_parser("lab.benchmarks.layer_bound", __doc__)
    add_model(parser)
    add_questions(parser, per_kind=500)
    parser.add_argument(
        "--data", type=Path, help="questions with relevant_boxes, in place of composed ones"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the collection")
    parser.add_argument(
        "--clip-frames", type=positive, help="ask about clips with this many scenes"
    )
    parser.add_argument(
        "--frames-per-scene", type=positive, default=1, help="frames that show each scene"
    )
    parser.add_argument(
        "--scoring-depth", type=int, default=0, help="decoder layers before the scoring layer"
    )
    options = parser.parse_args(arguments)
    model, processor = load_model(options.model, dtype="float32")
    samples: Sequence[Sample] | SampleSource
    if options.data is not None:
        samples = JsonLines(options.data)
    elif options.clip_frames is None:
        samples = scene_samples(KINDS, options.per_kind, seed=options.seed, split=_SPLIT)
    else:
        samples = clip_samples(
            CLIP_KINDS,
            options.per_kind,
            seed=options.seed,
            frames=options.clip_frames,
            frames_per_scene=options.frames_per_scene,
            split=_SPLIT,
        )
    collect_truth(
        model,
        processor,
        samples,
        options.output,
        scoring_depth=options.scoring_depth,
        name=options.model,
    )


if __name__ == "__main__":
    main()
