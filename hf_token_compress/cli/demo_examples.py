"""The demo's questions, and a model's answers to them at falling shares of visual tokens."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..data.answers import is_right
from ..data.composed import scene_sample
from ..data.sample import Sample
from ..data.scenes import KINDS, make_scene, scene_questions
from ..viz import contact_sheet, overlay
from .answering import Answer, answer, prepare_question
from .checkpoint import Checkpoint

SHARES: tuple[float, ...] = (0.5, 0.25, 0.1)
"""Shares of the visual tokens that the demo keeps, after the stock model has seen all."""

REPEATS = 3
"""Times that every answer is generated, to time it."""

_BOARDS = ((4, 4), (4, 5), (5, 4), (4, 6), (5, 5), (6, 6))
_MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class Attempt:
    """One answer with all or some of the visual tokens.

    Attributes:
        share: Share of the visual tokens that was asked for.
        visual_tokens: Visual tokens that the language model saw.
        prompt_tokens: All tokens of the prompt that it saw.
        text: The answer.
        right: Whether it is right.
        milliseconds: Of the whole call, median of `REPEATS`.
        image: The image, with what the language model did not see dimmed.
    """

    share: float
    visual_tokens: int
    prompt_tokens: int
    text: str
    right: bool
    milliseconds: float
    image: Image.Image


@dataclass(frozen=True)
class Trial:
    """A question and its attempts: the stock model's, then one per share."""

    sample: Sample
    attempts: tuple[Attempt, ...]

    def contact_sheet(self, scorer_name: str) -> Image.Image:
        """What was kept and answered at every share, side by side."""
        asked, captions = self.sample, []
        for attempt in self.attempts:
            kept = "All" if attempt.share == 1.0 else f"{attempt.share:.0%}:"
            verdict = "right" if attempt.right else "wrong"
            said = attempt.text or "(nothing)"
            captions.append(f"{kept} {attempt.visual_tokens} visual tokens\n{said} ({verdict})")
        return contact_sheet(
            [attempt.image for attempt in self.attempts],
            captions,
            title=f"{asked.question}\nCorrect answer: {asked.answer}. Scorer: {scorer_name}.",
        )


def held_out_questions(count: int, seed: int) -> list[Sample]:
    """Questions of all kinds in turn, each about an image of its own from the split "test".

    Args:
        count: How many.
        seed: Number of the first image; images are numbered from there on.
    """
    return list(itertools.islice(_questions(seed), count))


def _questions(seed: int) -> Iterator[Sample]:
    for number in itertools.count():
        rows, columns = _BOARDS[number % len(_BOARDS)]
        scene = make_scene(seed + number, rows, columns, split="test")
        kind = KINDS[number % len(KINDS)]
        for question in scene_questions(scene, kinds=[kind], seed=seed + number):
            yield scene_sample(scene, question)


def warm_up(checkpoint: Checkpoint, sample: Sample) -> None:
    """Answer once with all and once with some tokens, so that first-call costs are not timed."""
    inputs = prepare_question(checkpoint, [sample.image], sample.question)
    answer(checkpoint, inputs, max_new_tokens=_MAX_NEW_TOKENS, all_tokens=True)
    answer(checkpoint, inputs, max_new_tokens=_MAX_NEW_TOKENS, retention_ratio=SHARES[0])


def try_question(checkpoint: Checkpoint, sample: Sample) -> Trial:
    """Answer one question with the stock model, then at every share of the visual tokens."""
    inputs = prepare_question(checkpoint, [sample.image], sample.question)
    whole = _repeated_answers(checkpoint, inputs, all_tokens=True)
    attempts = []
    for share in SHARES:
        answers = _repeated_answers(checkpoint, inputs, retention_ratio=share)
        report = answers[0].report
        assert report is not None  # only the stock model's answer has none
        kept = report.samples[0]
        attempts.append(
            _attempt(
                sample,
                answers,
                share=share,
                visual_tokens=kept.visual_tokens_after,
                prompt_tokens=len(kept.kept_indices),
                image=overlay(sample.image, kept),
            )
        )
    stock = _attempt(
        sample,
        whole,
        share=1.0,
        visual_tokens=kept.visual_tokens_before,
        prompt_tokens=inputs["input_ids"].shape[1],
        image=sample.image,
    )
    return Trial(sample, (stock, *attempts))


def _repeated_answers(
    checkpoint: Checkpoint, inputs: Mapping[str, Any], **options: Any
) -> list[Answer]:
    return [
        answer(checkpoint, inputs, max_new_tokens=_MAX_NEW_TOKENS, **options)
        for _ in range(REPEATS)
    ]


def _attempt(sample: Sample, answers: list[Answer], **attributes: Any) -> Attempt:
    assert sample.answer is not None  # composed questions have answers
    text = answers[0].text
    return Attempt(
        text=text,
        right=is_right(text, sample.answer),
        milliseconds=statistics.median(found.milliseconds for found in answers),
        **attributes,
    )
