"""Find out which packed questions are answered right, with the right answer as context.

All tokens of the answer are predicted right if and only if greedy decoding returns the answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

import torch

from hf_token_compress.data.scenes import Question

from .architecture import StockModel
from .forward import answer_logits
from .packing import IGNORED, PackedBatch


@torch.no_grad()
def right_answers(
    model: StockModel,
    tokens: torch.Tensor,
    batch: PackedBatch,
    questions: Sequence[Sequence[Question]],
) -> list[list[bool]]:
    """Whether each question of each image is answered right.

    Args:
        model: The model.
        tokens: [B, N, D] visual tokens, before any is dropped.
        batch: The packed questions.
        questions: The questions about each image.
    """
    logits, labels = answer_logits(model, tokens, batch)
    hits = iter((logits.argmax(-1) == labels).tolist())
    answers = (batch.labels != IGNORED).tolist()
    result = []
    for flags, asked in zip(answers, questions, strict=True):
        lengths = _run_lengths(flags)
        pairs = zip(asked, lengths, strict=True)
        result.append([all(list(islice(hits, length))) for _, length in pairs])
    return result


def accuracy_by_kind(
    model: StockModel,
    tokens: torch.Tensor,
    batch: PackedBatch,
    questions: Sequence[Sequence[Question]],
) -> dict[str, float]:
    """Share of right answers by kind of question; arguments as for `right_answers`."""
    outcome: dict[str, list[bool]] = defaultdict(list)
    right = right_answers(model, tokens, batch, questions)
    for asked, hits in zip(questions, right, strict=True):
        for question, hit in zip(asked, hits, strict=True):
            outcome[question.kind].append(hit)
    return {kind: sum(hits) / len(hits) for kind, hits in sorted(outcome.items())}


def _run_lengths(flags: Sequence[bool]) -> list[int]:
    """Lengths of the runs of True."""
    lengths, current = [], 0
    for flag in [*flags, False]:
        if flag:
            current += 1
        elif current:
            lengths.append(current)
            current = 0
    return lengths


def percent(accuracy: dict[str, float]) -> str:
    """Percentages on one line."""
    return " ".join(f"{kind} {100 * value:.0f}" for kind, value in accuracy.items())
