"""Train the whole model end to end on pictures and questions.

The loss is on answers, plus a little of the vision warm-up's loss so that every visual token goes
on saying what its cell shows. In most batches visual tokens are dropped at random before the
language model: a model this small would otherwise count positions through the other tokens, and
no way of pruning would mean anything on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.scenes import KINDS, make_scene, scene_questions
from hf_token_compress.training.tiny.architecture import StockModel
from hf_token_compress.training.tiny.boards import random_questions, random_shape
from hf_token_compress.training.tiny.forward import answer_loss, encode_pictures, patches_of
from hf_token_compress.training.tiny.loop import LoopSettings, train
from hf_token_compress.training.tiny.packing import Packer, drop_visual_tokens
from hf_token_compress.training.tiny.scoring import accuracy_by_kind, percent
from hf_token_compress.training.tiny.selection import layer0_attention, top
from hf_token_compress.training.tiny.vision_warmup import description_loss
from hf_token_compress.training.tiny.vocabulary import CellVocabulary

_DESCRIPTION_WEIGHT = 0.2


def train_jointly(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
    pictures: int = 16,
    questions: int = 12,
    seed: int = 3,
) -> None:
    """Train all weights, in place.

    Args:
        model: The model, with the weights of both warm-ups.
        tokenizer: Its tokenizer.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        pictures: Pictures of 16 cells per update; fewer where they are larger.
        questions: Questions per 16 cells.
        seed: Seed of pictures and questions.
    """
    packer, vocabulary = Packer(tokenizer), CellVocabulary(tokenizer)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows, columns = random_shape(rng)
        count = max(1, pictures * 16 // (rows * columns))
        first = (seed << 32) + step * pictures
        scenes = [make_scene(first + i, rows, columns, "train") for i in range(count)]
        asked = [random_questions(s, questions * pictures // count, rng) for s in scenes]
        grid = (2 * rows, 2 * columns)
        patches = patches_of([scene.image for scene in scenes])
        kept = drop_visual_tokens(count, grid[0] * grid[1], generator)
        batch = packer.pack(asked, grid, kept)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = encode_pictures(model.model.visual, patches, grid).float()
            loss = answer_loss(model, tokens, batch)
        words = model.get_input_embeddings().weight.detach()
        described = description_loss(tokens, scenes, vocabulary, words)
        return loss + _DESCRIPTION_WEIGHT * described

    @torch.no_grad()
    def report(step: int) -> str:
        scenes = [make_scene(i, 4, 4, "validation") for i in range(24)]
        asked = [scene_questions(scene, KINDS, seed=i) for i, scene in enumerate(scenes)]
        patches = patches_of([scene.image for scene in scenes])
        tokens = encode_pictures(model.model.visual, patches, (8, 8))
        whole = packer.pack(asked, (8, 8), torch.arange(64).expand(len(scenes), 64))
        parts = [percent(accuracy_by_kind(model, tokens, whole, asked))]
        single = [[question] for questions_ in asked for question in questions_]
        repeated = tokens.repeat_interleave(torch.tensor([len(q) for q in asked]), 0)
        every = torch.arange(64).expand(len(single), 64)
        scores = layer0_attention(model, repeated, packer.pack(single, (8, 8), every))
        chance = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed))
        for title, ranked in (("attention", scores), ("random", chance)):
            pruned = packer.pack(single, (8, 8), top(ranked, 16))
            line = percent(accuracy_by_kind(model, repeated, pruned, single))
            parts.append(f"{title} 25 %: {line}")
        return " | ".join(parts)

    train(model, loss_of_step, settings, checkpoint, report)
