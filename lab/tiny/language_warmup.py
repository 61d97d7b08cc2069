"""Train the language model to answer from ideal visual tokens, without rendered images.

An ideal visual token is the sum of the word embeddings of everything its cell shows. Noise, missing
words and wrong words stand in for the errors of a vision tower. Word embeddings are frozen, because
the vision warm-up uses them as targets at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import Question, Scene

from .architecture import StockModel
from .forward import answer_loss
from .grids import (
    CURRICULUM,
    curriculum_shape,
    random_questions,
    random_scene,
)
from .loop import LoopSettings, train
from .packing import (
    PackedBatch,
    Packer,
    drop_visual_tokens,
    grid_positions,
)
from .scoring import accuracy_by_kind, percent
from .vocabulary import ATTRIBUTES, CellVocabulary

WORDS = "model.language_model.embed_tokens.weight"
_BLUR = 0.3
_MISSING = 0.05
_WRONG = 0.03
_LETTER_MISSING_ELSEWHERE = 0.8
_EARLY_WEIGHT = 0.5


def warm_up_language(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
    batch_size: int = 16,
    questions: int = 12,
    seed: int = 1,
) -> None:
    """Train the language model except its word embeddings, in place."""
    packer, vocabulary = Packer(tokenizer), CellVocabulary(tokenizer)

    def batch_of(
        rng: np.random.Generator, generator: torch.Generator, shape: tuple[int, int], share: float
    ) -> tuple[torch.Tensor, PackedBatch, Sequence[Sequence[Question]]]:
        scenes = [random_scene(rng, *shape) for _ in range(batch_size)]
        asked = [random_questions(scene, questions, rng) for scene in scenes]
        words = model.get_input_embeddings().weight.detach()
        tokens = noisy_ideal_tokens(scenes, vocabulary, words, generator)
        kept = drop_visual_tokens(batch_size, tokens.shape[1], generator, share)
        grid = (2 * shape[0], 2 * shape[1])
        return tokens, packer.pack(asked, grid_positions(grid), kept), asked

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        share = 0.6 if step >= CURRICULUM[-1][0] else 0.0
        tokens, batch, _ = batch_of(rng, generator, curriculum_shape(rng, step), share)
        with torch.autocast("cpu", torch.bfloat16):
            return answer_loss(model, tokens, batch, _EARLY_WEIGHT)

    def report(step: int) -> str:
        rng = np.random.default_rng([seed + 1, 0])
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for side in (2, 4):
            tokens, batch, asked = batch_of(rng, generator, (side, side), 0.0)
            accuracy = percent(accuracy_by_kind(model, tokens, batch, asked))
            parts.append(f"{side}x{side}: {accuracy}")
        return " | ".join(parts)

    frozen = [n for n, _ in model.named_parameters() if n.startswith("model.visual") or n == WORDS]
    train(model, loss_of_step, settings, checkpoint, report, frozen)


def noisy_ideal_tokens(
    scenes: Sequence[Scene],
    vocabulary: CellVocabulary,
    words: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Ideal visual tokens with noise, and with some words missing or wrong.

    The letter is often missing from tokens that do not show the badge, because a small tower hardly
    brings it there.

    Args:
        scenes: B scenes of one shape.
        vocabulary: What their cells can show.
        words: Word embeddings [vocabulary, D].
        generator: Generator of the noise.

    Returns:
        float32 [B, N, D].
    """
    classes = vocabulary.classes(scenes)
    shape = classes.shape[:2]
    elsewhere = torch.ones(shape).scatter(1, vocabulary.badge_tokens(scenes), 0.0)
    parts = []
    for index, vectors in enumerate(vocabulary.vectors(words)):
        shown = classes[..., index]
        other = torch.randint(len(vectors), shape, generator=generator)
        wrong = torch.rand(shape, generator=generator) < _WRONG
        missing: torch.Tensor | float = _MISSING
        if ATTRIBUTES[index] == "letter":
            missing = _MISSING + _LETTER_MISSING_ELSEWHERE * elsewhere
        strength = 0.6 + 0.8 * torch.rand(shape, generator=generator)
        strength *= torch.rand(shape, generator=generator) >= missing
        parts.append(vectors[torch.where(wrong, other, shown)] * strength[..., None])
    total = torch.stack(parts).sum(0)
    blur = torch.randn(total.shape, generator=generator) * words.std() * _BLUR
    return total + blur
