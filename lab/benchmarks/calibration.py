"""Accuracy with mappers that `calibrate` trains on a few dozen prompts.

    python -m lab.benchmarks.calibration --model tiny-qwen2-vl --prompts 48,96
    python -m lab.benchmarks.calibration --model testbed --source drawings --prompts 48

Prints a Markdown table with "attention" and the default scorer, which need no prompts, and with the
mapper that comes with the model, if there is one. Prompts and questions come from separate streams.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_token_compress.config import DEFAULT_SCORER
from hf_token_compress.data.composed import SceneSource
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.sources import SampleSource
from hf_token_compress.evaluation import (
    RetentionResult,
    measure_retention,
    retention_markdown,
)
from hf_token_compress.tiny import own_mapper
from hf_token_compress.training.calibration import calibrate
from hf_token_compress.training.collect import CollectOptions

from ..arguments import (
    add_model,
    add_questions,
    add_retention_ratios,
    add_threads,
    comma_list,
    make_parser,
    set_threads,
)
from ..loading import load_model
from ..testbed.arguments import add_source, questions_of


def measure_calibration(
    model: Any,
    processor: Any,
    prompts: Sequence[Sequence[Sample]],
    samples: Sequence[Sample],
    *,
    scorers: Sequence[str] = ("attention",),
    retention_ratios: Sequence[float] = (0.5, 0.25, 0.1),
) -> tuple[list[RetentionResult], list[float]]:
    """Calibrate with each set of prompts, then ask all questions.

    Args:
        model: An uncompressed model of a supported family.
        processor: Its processor.
        prompts: Sets of prompts to calibrate with.
        samples: The questions.
        scorers: Scorers to compare with, as `measure_retention` takes them.
        retention_ratios: Shares of visual tokens to keep.

    Returns:
        The results, with calibrated mappers named "calibrate, N prompts", and the seconds that each
        calibration took.
    """
    names: dict[str, str] = {}
    seconds: list[float] = []
    with TemporaryDirectory() as folder:
        for number, chosen in enumerate(prompts):
            start = time.perf_counter()
            mapper = calibrate(
                model, processor, chosen, collect_options=CollectOptions(max_new_tokens=16)
            )
            seconds.append(time.perf_counter() - start)
            own = Path(folder) / str(number)
            mapper.save_pretrained(own)
            names[f"mapper:{own}"] = f"calibrate, {len(chosen)} prompts"
        results = measure_retention(
            model,
            processor,
            samples,
            scorers=[*scorers, *names],
            retention_ratios=retention_ratios,
        )
    named = [
        replace(
            result,
            setting=replace(result.setting, scorer=names.get(result.scorer or "", result.scorer)),
        )
        for result in results
    ]
    return named, seconds


def usable_prompts(source: SampleSource, count: int) -> list[Sample]:
    """The first `count` samples of a source that can be read."""
    found: list[Sample] = []
    for number in range(len(source)):
        if len(found) == count:
            break
        try:
            found.append(source[number])
        except ValueError:  # the scene has no question of its kind
            continue
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser("lab.benchmarks.calibration", __doc__)
    add_model(parser)
    add_source(parser)
    add_questions(parser, per_kind=60)
    add_retention_ratios(parser)
    add_threads(parser)
    parser.add_argument(
        "--prompts", type=comma_list(int), default=[48, 96], help="numbers of prompts"
    )
    parser.add_argument("--prompt-seed", type=int, default=60_000, help="seed of the first prompt")
    parser.add_argument("--dtype", default="float32", help="dtype of the model")
    options = parser.parse_args(arguments)
    set_threads(options)
    model, processor = load_model(options.model, dtype=options.dtype)
    shipped = own_mapper(options.model)
    most = max(options.prompts)
    samples = questions_of(options)
    if options.model.startswith("tiny-"):
        prompts = usable_prompts(SceneSource(2 * most, seed=options.prompt_seed), most)
    else:
        per_kind = -(-most // len({own.kind for own in samples}))
        prompts = _mixed(
            questions_of(options, per_kind=per_kind, seed=options.prompt_seed, split="mapper"), most
        )
    results, seconds = measure_calibration(
        model,
        processor,
        [prompts[:count] for count in options.prompts],
        samples,
        scorers=["attention", DEFAULT_SCORER, *([f"mapper:{shipped}"] if shipped else [])],
        retention_ratios=options.retention_ratios,
    )
    print(retention_markdown(results))
    for count, passed in zip(options.prompts, seconds, strict=True):
        print(f"\nCalibrating with {count} prompts took {passed:.0f} s.")


def _mixed(samples: Sequence[Sample], count: int) -> list[Sample]:
    """The first samples, the kinds taken in turn."""
    kinds = dict.fromkeys(own.kind for own in samples)
    by_kind = ([own for own in samples if own.kind == kind] for kind in kinds)
    return [own for turn in zip(*by_kind, strict=True) for own in turn][:count]


if __name__ == "__main__":
    main()
