"""Accuracy of the trained testbed by source and kind of question, for its model card.

Questions are packed after their image, with the right answer as context. An answer counts if all of
its tokens are the likeliest, which is the case exactly when greedy decoding returns it.
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

from ...tiny.packing import Packer, sequence_positions
from ...tiny.scoring import right_answers
from .. import load_testbed
from ..objects.cutouts import Cutouts
from ..objects.questions import CLIP_KINDS, KINDS
from ..processor import BEFORE_ANSWER, CLOSING, OPENING
from ..samples import SOURCES, object_samples
from .vision import (
    clip_tokens,
    image_tokens,
    pixels_of,
    tower_features,
)


def measure_accuracy(
    source: str,
    per_kind: int,
    *,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
    cutouts: Cutouts | None = None,
) -> tuple[Counter[str], Counter[str]]:
    """Count right answers and questions by kind.

    Args:
        source: One of `SOURCES`.
        per_kind: Questions of each kind.
        kinds: Kinds of questions; by default all.
        seed: Number of the first image.
        cutouts: The cut-outs of photographs.
    """
    if kinds is None:
        kinds = CLIP_KINDS if source == "clips" else KINDS
    samples = object_samples(kinds, per_kind, source=source, seed=seed, cutouts=cutouts)
    model, processor = load_testbed()
    packer = Packer(processor.tokenizer, OPENING, CLOSING, before_answer=BEFORE_ANSWER)
    by_image: dict[int, list[Sample]] = {}
    for sample in samples:
        by_image.setdefault(id(sample.image), []).append(sample)
    right, asked = Counter[str](), Counter[str]()
    for group in track(list(by_image.values()), source):
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
    return image_tokens(model, patches)


def accuracy_lines(per_kind: int, *, seed: int = 0, cutouts: Path | None = None) -> Iterator[str]:
    """Measure one source after the other; yield the lines of a Markdown table in percent.

    Args:
        per_kind: Questions of each kind.
        seed: Number of the first image.
        cutouts: Folder of cutouts; without it photographs are left out.
    """
    yield "| images | " + " | ".join(KINDS) + " |"
    yield "|---|" + "---|" * len(KINDS)
    for source in SOURCES:
        if "photographs" in source and cutouts is None:
            continue
        right, asked = measure_accuracy(
            source,
            per_kind,
            # Images of held-out cutouts do not repeat names.
            kinds=[k for k in KINDS if k != "count"] if source == "held-out-photographs" else None,
            seed=seed,
            cutouts=None if cutouts is None else Cutouts(cutouts),
        )
        shares = {kind: f"{100 * right[kind] / count:.1f}" for kind, count in asked.items()}
        if source == "clips":
            yield "\nClips: " + ", ".join(f"{kind} {share}" for kind, share in shares.items()) + "."
        else:
            yield f"| {source} | " + " | ".join(shares.get(kind, "") for kind in KINDS) + " |"
