"""Train the whole model end to end on images and questions.

The loss is that of the answers plus a small share of the vision warm-up's loss, so that every
visual token still describes its cell. In most batches visual tokens are dropped at random before
the language model. Otherwise a model this small would count positions through the other tokens, and
pruning it would mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import KINDS, Question, make_scene, scene_questions

from .architecture import StockModel
from .forward import answer_loss, encode_scenes
from .grids import random_questions, random_shape
from .loop import LoopSettings, train
from .packing import Packer, drop_visual_tokens, grid_positions
from .scoring import accuracy_by_kind, percent
from .selection import instruction_attention, top
from .vision_warmup import description_loss
from .vocabulary import CellVocabulary

DESCRIPTION_WEIGHT = 0.2


def train_jointly(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
    images: int = 16,
    questions: int = 12,
    seed: int = 3,
) -> None:
    """Train all weights, in place.

    Args:
        model: The model, with the weights of both warm-ups.
        tokenizer: Its tokenizer.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        images: Images per update if they have 16 cells; fewer if they are larger.
        questions: Questions per 16 cells.
        seed: Seed of images and questions.
    """
    packer, vocabulary = Packer(tokenizer), CellVocabulary(tokenizer)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows, columns = random_shape(rng)
        count = max(1, images * 16 // (rows * columns))
        first = (seed << 32) + step * images
        scenes = [make_scene(first + i, rows, columns, "train") for i in range(count)]
        asked = [random_questions(s, questions * images // count, rng) for s in scenes]
        grid = (2 * rows, 2 * columns)
        kept = drop_visual_tokens(count, grid[0] * grid[1], generator)
        batch = packer.pack(asked, grid_positions(grid), kept)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = encode_scenes(model.model.visual, scenes).float()
            loss = answer_loss(model, tokens, batch)
        words = model.get_input_embeddings().weight.detach()
        described = description_loss(tokens, scenes, vocabulary, words)
        return loss + DESCRIPTION_WEIGHT * described

    @torch.no_grad()
    def report(step: int) -> str:
        scenes = [make_scene(i, 4, 4, "validation") for i in range(24)]
        asked = [scene_questions(scene, KINDS, seed=i) for i, scene in enumerate(scenes)]
        tokens = encode_scenes(model.model.visual, scenes)
        return accuracy_line(model, packer, tokens, grid_positions((8, 8)), asked)

    train(model, loss_of_step, settings, checkpoint, report)


@torch.no_grad()
def accuracy_line(
    model: StockModel,
    packer: Packer,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    asked: Sequence[Sequence[Question]],
    text: Sequence[int] = (),
) -> str:
    """Accuracy by kind with all visual tokens, and with the best or a random quarter of them.

    Args:
        model: The model.
        packer: Packer of its prompts.
        tokens: [B, N, D] visual tokens of the images.
        positions: [A, N] int64, as `Packer.pack` takes them.
        asked: Questions about each image.
        text: Indices of tokens that are text and always kept.
    """
    count = tokens.shape[1]
    whole = packer.pack(asked, positions, torch.arange(count).expand(len(tokens), count))
    parts = [percent(accuracy_by_kind(model, tokens, whole, asked))]
    single = [[question] for questions in asked for question in questions]
    repeated = tokens.repeat_interleave(torch.tensor([len(q) for q in asked]), 0)
    every = torch.arange(count).expand(len(single), count)
    scores = instruction_attention(model, repeated, packer.pack(single, positions, every))
    chance = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
    keep = len(text) + (count - len(text)) // 4
    for title, ranked in (("attention", scores), ("random", chance)):
        ranked[:, list(text)] = float("inf")
        pruned = packer.pack(single, positions, top(ranked, keep))
        line = percent(accuracy_by_kind(model, repeated, pruned, single))
        parts.append(f"{title} 25 %: {line}")
    return " | ".join(parts)
