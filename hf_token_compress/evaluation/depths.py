"""What attention knows at which depth: scorers by layer, on the testbed or a tiny model.

    python -m hf_token_compress.evaluation.depths --model testbed --per-kind 40

Compares the attention of the question to the picture in layer 0, in a middle and in the last layer,
the rollout of all layers, and random tokens, with what the answer truly rests on. All but layer 0
cost more than compression saves: the table says what is known where, not what to use.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ..cli.evaluate import as_rows
from ..models.registry import family_adapter
from ..scenes import KINDS as SCENE_KINDS
from ..testbed import is_testbed
from ..testbed.things.questions import CLIP_KINDS, KINDS
from ..testbed.things.stamps import STAMPS_FOLDER, Stamps
from .loading import load_model
from .retention import TRUTH, NamedScorer, measure_retention, retention_markdown
from .tasks import Sample, scene_samples
from .things import SOURCES, things_samples


def depth_scorers(layers: int) -> dict[str, str | NamedScorer]:
    """The scorers that are compared, by the names of the command line.

    Args:
        layers: Decoder layers of the model.
    """
    middle, last = layers // 2, layers - 1
    rollout = {"rule": "rollout", "max_new_tokens": 8, "targets": "sum"}
    return {
        TRUTH: TRUTH,
        "layer-0": NamedScorer("attention, layer 0", "attention"),
        "middle": NamedScorer(f"attention, layer {middle}", "attention", {"scoring_depth": middle}),
        "last": NamedScorer(f"attention, layer {last}", "attention", {"scoring_depth": last}),
        "rollout": NamedScorer("rollout of all layers", "relevance", rollout),
        "relevance": "relevance",
        "random": "random",
    }


DEFAULT = (TRUTH, "layer-0", "middle", "last", "rollout", "random")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m hf_token_compress.evaluation.depths",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--model", default="testbed", help="testbed, or a tiny model")
    parser.add_argument("--source", choices=SOURCES, default="drawings", help="of the testbed")
    parser.add_argument("--stamps", type=Path, default=STAMPS_FOLDER, help="folder of stamps")
    parser.add_argument("--kinds", nargs="+", help="kinds of questions; by default all")
    parser.add_argument("--per-kind", type=int, default=40, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=0, help="number of the first picture")
    parser.add_argument("--scorers", nargs="+", choices=depth_scorers(2), default=DEFAULT)
    parser.add_argument("--retention-ratios", type=float, nargs="+", default=[0.5, 0.25, 0.1])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args(arguments)
    try:
        samples = _samples(options)
        model, processor = load_model(options.model, dtype=options.dtype)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    model = model.to(options.device)
    layers = len(family_adapter(type(model)).decoder(model).layers)
    scorers = [depth_scorers(layers)[name] for name in options.scorers]
    asked = len(samples) * (1 + len(scorers) * len(options.retention_ratios))
    with Progress() as progress:
        task = progress.add_task("questions", total=asked)
        found = measure_retention(
            model,
            processor,
            samples,
            scorers=scorers,
            retention_ratios=options.retention_ratios,
            batch_size=options.batch_size,
            after_batch=lambda count: progress.advance(task, count),
        )
    print(retention_markdown(found))
    if options.json is not None:
        options.json.write_text(json.dumps(as_rows(found), indent=2) + "\n", encoding="utf-8")


def _samples(options: Any) -> list[Sample]:
    if not is_testbed(options.model):
        return scene_samples(options.kinds or SCENE_KINDS, options.per_kind, seed=options.seed)
    stamps = Stamps(options.stamps) if "photographs" in options.source else None
    return things_samples(
        options.kinds or (CLIP_KINDS if options.source == "clips" else KINDS),
        options.per_kind,
        source=options.source,
        seed=options.seed,
        stamps=stamps,
    )


if __name__ == "__main__":
    main()
