"""Train the vision tower to describe the cell of each visual token in word embeddings.

Each token of a cell describes all five attributes of the cell: it is classified against the word
embeddings of each attribute and pulled towards their sum, the ideal token of the language warm-up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import Scene, make_scene

from .grids import random_shape
from .loop import LoopSettings, train
from .vocabulary import ATTRIBUTES, CellVocabulary

Encoder: TypeAlias = Callable[[Sequence[Scene]], torch.Tensor]
"""From B scenes of one shape to their visual tokens [B, N, D]."""

_SHARPNESS = 8.0
_PULL = 1.0


def warm_up_vision(
    module: nn.Module,
    encode: Encoder,
    words: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
    *,
    shape: Callable[[np.random.Generator], tuple[int, int]] = random_shape,
    shown: Sequence[tuple[int, int]] = ((4, 4), (6, 6)),
    targets: Encoder | None = None,
    frozen: Iterable[str] = (),
    images: int = 16,
    repeat_after: int | None = None,
    seed: int = 2,
) -> None:
    """Train a vision tower, in place.

    Args:
        module: Module with the tower's parameters.
        encode: The tower.
        words: Word embeddings [vocabulary, D] of the language model.
        tokenizer: Tokenizer of the model.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        shape: Draws rows and columns of an update's images.
        shown: Rows and columns of images in reports.
        targets: Another tower with the target tokens; by default the targets are ideal tokens.
        frozen: Names of parameters of `module` not to train.
        images: Images per update if they have 16 cells; fewer if they are larger.
        repeat_after: Updates after which the images repeat; they are kept in memory with their
            targets. By default every update has new images.
        seed: Seed of the images.
    """
    vocabulary = CellVocabulary(tokenizer)

    @functools.lru_cache(maxsize=repeat_after or 1)
    def images_of_step(number: int) -> tuple[list[Scene], torch.Tensor | None]:
        rng = np.random.default_rng([seed, number])
        rows, columns = shape(rng)
        count = max(1, images * 16 // (rows * columns))
        first = (seed << 32) + number * images
        scenes = [make_scene(first + i, rows, columns, "train") for i in range(count)]
        if targets is None:
            return scenes, None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return scenes, targets(scenes).float()

    def loss_of_step(step: int) -> torch.Tensor:
        scenes, target = images_of_step(step % repeat_after if repeat_after else step)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = encode(scenes).float()
        return description_loss(tokens, scenes, vocabulary, words, target)

    @torch.no_grad()
    def report(step: int) -> str:
        parts = []
        for rows, columns in shown:
            scenes = [make_scene(i, rows, columns, "validation") for i in range(8)]
            scores = _scores(encode(scenes), vocabulary, words)
            classes = vocabulary.classes(scenes)
            right = [(s.argmax(-1) == classes[..., i]).float().mean() for i, s in enumerate(scores)]
            line = " ".join(f"{k} {100 * r:.0f}" for k, r in zip(ATTRIBUTES, right, strict=True))
            parts.append(f"{rows}x{columns}: {line}")
        return " | ".join(parts)

    train(module, loss_of_step, settings, checkpoint, report, frozen)


def description_loss(
    tokens: torch.Tensor,
    scenes: Sequence[Scene],
    vocabulary: CellVocabulary,
    words: torch.Tensor,
    target: torch.Tensor | None = None,
) -> torch.Tensor:
    """Loss of visual tokens against the description of their cells.

    Args:
        tokens: All visual tokens of each image, float32 [B, N, D].
        scenes: The B scenes, of one shape.
        vocabulary: What a cell can show.
        words: Word embeddings [vocabulary, D].
        target: Target tokens [B, N, D]; by default the ideal tokens.

    Returns:
        Scalar: classification losses of all attributes, plus the distance to the target.
    """
    scores = _scores(tokens, vocabulary, words)
    classes = vocabulary.classes(scenes)
    loss = _badge_loss(scores, classes, vocabulary.badge_tokens(scenes))
    for index, score in enumerate(scores):
        loss = loss + nn.functional.cross_entropy(
            score.flatten(0, 1), classes[..., index].flatten()
        )
    if target is None:
        target = vocabulary.ideal_tokens(classes, words)
    return loss + _PULL * (tokens - target).square().sum(-1).mean()


def _scores(
    tokens: torch.Tensor, vocabulary: CellVocabulary, words: torch.Tensor
) -> list[torch.Tensor]:
    """Logits [B, N, classes] of each attribute."""
    return [_SHARPNESS * tokens @ vectors.T for vectors in vocabulary.vectors(words)]


def _badge_loss(
    scores: list[torch.Tensor], classes: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Additional loss for letter and name at the tokens that show a badge.

    The letter is small: it is learned at the badge first, and then the other tokens of the cell
    learn to fetch it from there. The badge hides much of the drawing, so its token has to fetch the
    name from the other tokens.
    """
    loss = classes.new_zeros((), dtype=torch.float32)
    for attribute in ("letter", "name"):
        index = ATTRIBUTES.index(attribute)
        where = tokens[..., None].expand(-1, -1, scores[index].shape[-1])
        predicted = scores[index].gather(1, where).flatten(0, 1)
        shown = classes[..., index].gather(1, tokens).flatten()
        loss = loss + nn.functional.cross_entropy(predicted, shown)
    return loss
