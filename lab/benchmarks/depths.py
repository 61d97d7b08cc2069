"""What attention knows of the answer at layer 0, in the middle and at the top, by kind of question.

    python -m lab.benchmarks.depths --model FOLDER --source drawings --per-kind 30 \
      --retention-ratios 0.5,0.25,0.1 --markdown

"attention@N" is the attention of the question to the visual tokens in decoder layer N (counted from
0, or "middle" or "last"), for which the layers below it run on the whole prompt. "rollout" is
attention rollout over all layers, read in the row that predicts the answer's first token. "truth"
keeps what the answer truly rests on, "random" anything. "relevance" explains the model's own answer
and takes far longer than the others, so that it is only asked for by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_token_compress.evaluation.retention import (
    TRUTH,
    ConfiguredScorer,
    RetentionResult,
    measure_retention,
    retention_markdown,
)
from hf_token_compress.tiny import resolve_model
from lab.testbed.objects.cutouts import STAMPS_FOLDER, Stamps
from lab.testbed.objects.questions import CLIP_KINDS, KINDS
from lab.testbed.samples import SOURCES, things_samples

SCORERS = (TRUTH, "attention@0", "attention@middle", "attention@last", "rollout", "random")

_ATTENTION = "attention@"
# No answer is known yet where its first token is predicted.
_ROLLOUT: dict[str, Any] = {"rule": "rollout", "max_new_tokens": 1, "targets": "sum"}


def scorer_at_depth(name: str, layers: int) -> str | ConfiguredScorer:
    """The scorer of that name.

    Args:
        name: "attention@N", "attention@middle", "attention@last", "rollout", or the name of a
            scorer as `measure_retention` takes it.
        layers: Decoder layers of the model.

    Raises:
        ValueError: The model has no such layer.
    """
    if name == "rollout":
        return ConfiguredScorer(name, "relevance", _ROLLOUT)
    if not name.startswith(_ATTENTION):
        return name
    depth = name.removeprefix(_ATTENTION)
    named = {"middle": layers // 2, "last": layers - 1}
    if depth not in named and not (depth.isdecimal() and int(depth) < layers):
        raise ValueError(
            f"There is no layer for {name!r}: put 0 to {layers - 1}, middle or last behind the @."
        )
    layer = named.get(depth) if depth in named else int(depth)
    return ConfiguredScorer(name, "attention", {"scoring_depth": layer})


def measure_depths(
    model: Any, processor: Any, samples: Sequence[Any], scorers: Sequence[str], **options: Any
) -> list[RetentionResult]:
    """Accuracy by scorer and retention ratio, as `measure_retention` gives it.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        samples: The questions.
        scorers: Names as `scorer_at_depth` takes them.
        **options: Passed to `measure_retention`.

    Raises:
        ValueError: The model has no such layer, or there is no such scorer.
    """
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    chosen = [scorer_at_depth(name, layers) for name in scorers]
    return measure_retention(model, processor, samples, scorers=chosen, **options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="Hub id or folder, such as the saved testbed"
    )
    parser.add_argument(
        "--source",
        default="drawings",
        choices=SOURCES,
        help="what the pictures are made of",
    )
    parser.add_argument("--stamps", type=Path, default=STAMPS_FOLDER, help="folder of stamps")
    parser.add_argument("--split", default="test", help="of the pictures")
    parser.add_argument("--kinds", help="kinds of questions; by default all")
    parser.add_argument("--per-kind", type=int, default=30, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--scorers", default=",".join(SCORERS))
    parser.add_argument("--retention-ratios", default="0.5,0.25,0.1")
    parser.add_argument("--batch-size", type=int, default=8, help="questions a batch")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", action="store_true", help="print the table and nothing else")
    options = parser.parse_args(arguments)
    known = CLIP_KINDS if options.source == "clips" else KINDS
    samples = things_samples(
        options.kinds.split(",") if options.kinds else known,
        options.per_kind,
        source=options.source,
        seed=options.seed,
        split=options.split,
        stamps=Stamps(options.stamps) if "photographs" in options.source else None,
    )
    location = resolve_model(options.model)
    model = AutoModelForImageTextToText.from_pretrained(location, dtype=options.dtype)
    processor = AutoProcessor.from_pretrained(location)
    results = measure_depths(
        model.to(options.device),
        processor,
        samples,
        options.scorers.split(","),
        retention_ratios=[float(ratio) for ratio in options.retention_ratios.split(",")],
        batch_size=options.batch_size,
    )
    if not options.markdown:
        print(f"{options.model}: right answers in percent to {len(samples)} questions\n")
    print(retention_markdown(results))


if __name__ == "__main__":
    main()
