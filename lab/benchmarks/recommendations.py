"""Whether what `recommend` promises holds on fresh questions.

    python -m lab.benchmarks.recommendations --images 1700 --repetitions 20 --questions 850 \
      --max-loss 3 --answers FILE

Asks one question about each of many composed images, once with every setting, and prints the table
of all settings. Then each repetition draws questions, recommends a setting from them, and measures
the loss of that setting on all the other images. Answers are kept in the file, with which a stopped
run goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.data.composed import SceneSource
from hf_token_compress.evaluation import Evaluation, Evaluator, Questions, settings_of
from hf_token_compress.evaluation.recommend import Measured, Recommendation, recommend
from hf_token_compress.evaluation.statistics import Scores
from hf_token_compress.tiny import own_mapper

from ..arguments import (
    add_model,
    add_retention_ratios,
    add_threads,
    comma_list,
    make_parser,
    positive,
    set_threads,
)
from ..loading import load_model

RATIOS = (0.75, 0.5, 0.25, 0.1, 0.05)


@dataclass(frozen=True)
class Pool:
    """Scores of all images' questions with every setting.

    Attributes:
        full: Scores of the full model, [N].
        sequences: For each scorer, its settings from the most tokens down.
    """

    full: Scores
    sequences: dict[str, list[Measured]]

    def part(self, chosen: npt.NDArray[np.bool_]) -> Pool:
        """The pool of some of the questions, by a mask [N]."""
        return Pool(
            self.full[chosen],
            {
                scorer: [
                    Measured(
                        item.config, item.kept_share, item.full[chosen], item.compressed[chosen]
                    )
                    for item in settings
                ]
                for scorer, settings in self.sequences.items()
            },
        )

    def recommend(self, max_loss: float, confidence: float) -> Recommendation:
        """The recommendation from these questions."""
        return recommend(self.full, self.sequences, max_loss=max_loss, confidence=confidence)

    def loss(self, config: TokenCompressionConfig) -> float:
        """Percent of the full model's score that a setting loses on these questions."""
        (item,) = (
            item
            for settings in self.sequences.values()
            for item in settings
            if item.config == config
        )
        return float(100 * (1 - item.compressed.mean() / item.full.mean()))

    def implied(self, max_loss: float) -> TokenCompressionConfig | None:
        """The setting that the losses themselves imply: the fewest tokens before a loss beyond."""
        within: list[Measured] = []
        for settings in self.sequences.values():
            for item in settings:
                if self.loss(item.config) > max_loss:
                    break
                within.append(item)
        best = min(within, key=lambda item: item.kept_share, default=None)
        return None if best is None else best.config


def repetitions(
    pool: Pool, *, count: int, questions: int, max_loss: float, confidence: float
) -> Iterator[tuple[Recommendation, float | None]]:
    """Recommend from drawn questions, and measure the loss on all others.

    Args:
        pool: The questions.
        count: Repetitions; number `i` draws with the seed `i`.
        questions: Questions that each recommends from, fewer than there are.
        max_loss: As `recommend` takes it.
        confidence: As `recommend` takes it.

    Yields:
        The recommendation, and the percent lost on fresh questions; None where nothing is
        recommended.
    """
    for number in range(count):
        own = np.zeros(len(pool.full), bool)
        own[np.random.default_rng(number).permutation(len(own))[:questions]] = True
        found = pool.part(own).recommend(max_loss, confidence)
        chosen = found.chosen
        yield found, None if chosen is None else pool.part(~own).loss(chosen.config)


def pool_of(found: Evaluation) -> Pool:
    """The scores of an evaluation in which every question has its own image.

    Raises:
        ValueError: Two questions share an image, so that one of them would not be fresh.
    """
    full, *others = found.results
    if len(set(full.clusters)) < len(full.clusters):
        raise ValueError("Two questions are about the same image: take another seed.")
    sequences: dict[str, list[Measured]] = {}
    for result in others:
        sequences.setdefault(result.setting.name, []).append(Measured.of(full, result))
    return Pool(full.scores(), sequences)


def print_settings(pool: Pool, max_loss: float) -> None:
    """Print the table of all settings."""
    print(f"{len(pool.full)} questions, full model {100 * pool.full.mean():.1f} %\n")
    print("| scorer | ratio | kept | percent of full |\n|---|---|---|---|")
    implied = pool.implied(max_loss)
    for scorer, settings in pool.sequences.items():
        for item in settings:
            mark = "**" if item.config == implied else ""
            print(
                f"| {mark}{scorer}{mark} | {item.config.retention_ratio} | "
                f"{100 * item.kept_share:.0f} % | {100 - pool.loss(item.config):.2f} |"
            )


def print_repetitions(
    found: Sequence[tuple[Recommendation, float | None]],
    implied: TokenCompressionConfig | None,
    max_loss: float,
) -> None:
    """Print a line a repetition, and how often the bound held."""
    print("\n| repetition | scorer | ratio | percent of full | loses at most | fresh loss |")
    print("|---|---|---|---|---|---|")
    for number, (recommendation, fresh) in enumerate(found, 1):
        step = recommendation.chosen
        if step is None:
            print(f"| {number} | nothing ({recommendation.verdict}) | | | | |")
            continue
        print(
            f"| {number} | {step.scorer} | {step.config.retention_ratio} | "
            f"{step.percent_of_full:.1f} | {step.loss_bound:.1f} | {fresh:.1f} |"
        )
    chosen = [(item.chosen, fresh) for item, fresh in found if item.chosen is not None]
    limit = sum(fresh <= max_loss for _, fresh in chosen)
    bound = sum(fresh <= step.loss_bound for step, fresh in chosen)
    same = sum(step.config == implied for step, _ in chosen)
    print(
        f"\nOf {len(found)} repetitions {len(chosen)} recommend a setting, {same} of them the one "
        f"that the table implies. On fresh questions {limit} lose at most {max_loss:g} %, and "
        f"{bound} at most what their bound says."
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("lab.benchmarks.recommendations", __doc__)
    add_model(parser)
    add_retention_ratios(parser, default=RATIOS)
    add_threads(parser)
    parser.add_argument(
        "--scorer", type=comma_list(str), default=["mapper", "attention"], help="scorers"
    )
    parser.add_argument("--repetitions", type=positive, default=20, help="repetitions")
    parser.add_argument("--images", type=positive, default=1700, help="one question about each")
    parser.add_argument("--questions", type=positive, default=850, help="questions of each")
    parser.add_argument("--max-loss", type=float, default=3.0, help="percent that may be lost")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the recommendation")
    parser.add_argument("--seed", type=int, default=700_000, help="seed of the first image")
    parser.add_argument("--batch-size", type=positive, default=64, help="questions per batch")
    parser.add_argument("--answers", type=Path, required=True, help="file that keeps the answers")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    options = _parser().parse_args(arguments)
    set_threads(options)
    model, processor = load_model(options.model, dtype="float32")
    settings = settings_of(
        options.scorer, options.retention_ratios, mapper=own_mapper(options.model)
    )
    questions = Questions(SceneSource(options.images, seed=options.seed, split="test"))
    evaluator = Evaluator(
        model,
        processor,
        questions,
        batch_size=options.batch_size,
        max_new_tokens=8,
        answers=options.answers,
    )
    asked = 0

    def show(count: int) -> None:
        nonlocal asked
        asked += count
        print(f"{asked} of {len(questions) * (1 + len(settings))} answers", file=sys.stderr)

    pool = pool_of(evaluator.run(settings, after_batch=show))
    print_settings(pool, options.max_loss)
    limits = {"max_loss": options.max_loss, "confidence": options.confidence}
    found = repetitions(pool, count=options.repetitions, questions=options.questions, **limits)
    implied = pool.implied(options.max_loss)
    print_repetitions(list(found), implied, options.max_loss)
    step = pool.recommend(**limits).chosen
    same = step is not None and step.config == implied
    print(f"From all questions, the recommendation {'is' if same else 'is not'} that of the table.")


if __name__ == "__main__":
    main()
