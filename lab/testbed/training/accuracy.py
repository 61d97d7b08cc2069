"""Accuracy of the trained testbed by source of pictures and kind of question, for its card.

Questions are packed behind their picture, with the right answer so far as context: an answer counts
if all of its tokens are the likeliest, which is when greedy decoding gives it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import Question
from lab.testbed import load_testbed
from lab.testbed.objects.cutouts import Stamps
from lab.testbed.objects.questions import CLIP_KINDS, KINDS
from lab.testbed.processor import BEFORE_ANSWER, CLOSING, OPENING
from lab.testbed.samples import SOURCES, things_samples
from lab.testbed.training.vision import (
    clip_tokens,
    picture_tokens,
    pixels_of,
    tower_features,
)
from lab.tiny.packing import Packer, sequence_positions
from lab.tiny.scoring import right_answers


def measure_accuracy(
    source: str,
    per_kind: int,
    *,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
    stamps: Stamps | None = None,
) -> tuple[Counter[str], Counter[str]]:
    """Right answers and questions by kind.

    Args:
        source: One of `SOURCES`.
        per_kind: Questions of each kind.
        kinds: Kinds of questions; by default all.
        seed: Number of the first picture.
        stamps: The cut-outs of photographs.
    """
    if kinds is None:
        kinds = CLIP_KINDS if source == "clips" else KINDS
    samples = things_samples(kinds, per_kind, source=source, seed=seed, stamps=stamps)
    model, processor = load_testbed()
    packer = Packer(processor.tokenizer, OPENING, CLOSING, before_answer=BEFORE_ANSWER)
    by_picture: dict[int, list[Sample]] = {}
    for sample in samples:
        by_picture.setdefault(id(sample.image), []).append(sample)
    right, asked = Counter[str](), Counter[str]()
    for group in track(list(by_picture.values()), source):
        tokens = _visual_tokens(model, processor, group[0])
        count = tokens.shape[1]
        questions = [[Question(s.kind, s.question, s.answer, ()) for s in group]]
        batch = packer.pack(questions, sequence_positions(count), torch.arange(count)[None])
        (hits,) = right_answers(model, tokens, batch, questions)
        for sample, hit in zip(group, hits, strict=True):
            asked[sample.kind] += 1
            right[sample.kind] += hit
    return right, asked


@torch.no_grad()
def _visual_tokens(model: Any, processor: Any, sample: Sample) -> Tensor:
    shown = list(sample.frames or (sample.image,))
    features = tower_features(model, processor, pixels_of(shown))
    patches = model.model.multi_modal_projector(features)
    if sample.frames:
        return clip_tokens(model, patches, len(shown))
    return picture_tokens(model, patches)


def accuracy_lines(per_kind: int, *, seed: int = 0, stamps: Path | None = None) -> Iterator[str]:
    """Lines of a Markdown table in percent, a row a source, as they are measured.

    Args:
        per_kind: Questions of each kind.
        seed: Number of the first picture.
        stamps: Folder of stamps; photographs are left out without it.
    """
    yield "| pictures | " + " | ".join(KINDS) + " |"
    yield "|---|" + "---|" * len(KINDS)
    for source in SOURCES:
        if "photographs" in source and stamps is None:
            continue
        right, asked = measure_accuracy(
            source,
            per_kind,
            # No name comes twice in a picture of held-out stamps.
            kinds=[k for k in KINDS if k != "count"] if source == "held-out-photographs" else None,
            seed=seed,
            stamps=None if stamps is None else Stamps(stamps),
        )
        shares = {kind: f"{100 * right[kind] / count:.1f}" for kind, count in asked.items()}
        if source == "clips":
            yield "\nClips: " + ", ".join(f"{kind} {share}" for kind, share in shares.items()) + "."
        else:
            yield f"| {source} | " + " | ".join(shares.get(kind, "") for kind in KINDS) + " |"
