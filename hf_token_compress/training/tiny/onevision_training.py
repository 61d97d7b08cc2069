"""The two trainings of the tiny LLaVA-OneVision: its tower alone, then everything.

The tower learns to give the visual tokens that the trained tiny Qwen2-VL's tower gives for the
same picture, which the language model reads already. The joint training then gets it used to
its own tower, to positions on one axis, to every picture coming twice (whole and as tiles), and
to clips.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.scenes import (
    KINDS,
    Question,
    Scene,
    clip_questions,
    make_clip,
    make_scene,
    scene_questions,
)
from hf_token_compress.tiny import load_tiny
from hf_token_compress.training.tiny.architecture import StockModel
from hf_token_compress.training.tiny.boards import random_clip_questions, random_questions
from hf_token_compress.training.tiny.forward import answer_loss, encode_scenes
from hf_token_compress.training.tiny.joint import DESCRIPTION_WEIGHT, accuracy_line
from hf_token_compress.training.tiny.loop import LoopSettings, train
from hf_token_compress.training.tiny.onevision_architecture import CLOSING, OPENING
from hf_token_compress.training.tiny.onevision_forward import (
    clip_tokens,
    encode_tiles,
    image_tokens,
    tile_pixels,
)
from hf_token_compress.training.tiny.packing import Packer, drop_visual_tokens, sequence_positions
from hf_token_compress.training.tiny.vision_warmup import description_loss, warm_up_vision
from hf_token_compress.training.tiny.vocabulary import CellVocabulary

BOARD = (4, 4)
"""Rows and columns of the pictures and frames: they fill one tile."""

LESSONS = 600
"""Updates after which the tower's pictures come again."""

PICTURE_DROP_SHARE, CLIP_DROP_SHARE = 0.6, 0.3
"""Shares of the updates in which visual tokens are dropped. A clip has one token a cell, a picture
eight, so that dropping takes the answer from many more questions about clips."""

CLIP_EARLY_WEIGHT = 0.3
"""Weight of predicting answers about clips before the question ends, as in `answer_loss`: to tell
frames apart is new to the language model."""

FRAMES = (2, 4)
"""Fewest and most boards of the clips."""

HOLD_SHARE, LONGEST_HOLD = 0.2, 4
"""Share of clip updates in which every board is shown for several frames, and for how many at
most: so that the model can read videos of sixteen frames."""


def warm_up_tower(
    model: StockModel, tokenizer: PreTrainedTokenizerBase, settings: LoopSettings, checkpoint: Path
) -> None:
    """Train vision tower and projector, in place."""
    teacher: StockModel = load_tiny("qwen2-vl")[0]
    frozen = [
        name
        for name, _ in model.model.named_parameters()
        if not name.startswith(("vision_tower", "multi_modal_projector"))
    ]
    warm_up_vision(
        model.model,
        lambda scenes: encode_tiles(model, _pixels(scenes)),
        model.get_input_embeddings().weight.detach(),
        tokenizer,
        settings,
        checkpoint,
        shape=lambda rng: BOARD,
        shown=(BOARD,),
        targets=functools.partial(encode_scenes, teacher.model.visual),
        frozen=frozen,
        lessons=LESSONS,
    )


def train_on_images_and_clips(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: LoopSettings,
    checkpoint: Path,
    pictures: int = 16,
    questions: int = 12,
    clips: int = 6,
    clip_questions_asked: int = 24,
    seed: int = 5,
) -> None:
    """Train all weights, in place: two updates on clips follow each one on pictures.

    Args:
        model: The model, with a trained tower.
        tokenizer: Its tokenizer.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        pictures: Pictures per update.
        questions: Questions per picture.
        clips: Clips per update.
        clip_questions_asked: Questions per clip.
        seed: Seed of pictures, clips and questions.
    """
    packer, vocabulary = Packer(tokenizer, OPENING, CLOSING), CellVocabulary(tokenizer)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        first = (seed << 32) + step * pictures
        frames, hold = 0, 1
        if step % 3:
            frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
            shown = [make_clip(first + i, frames, *BOARD, "train") for i in range(clips)]
            scenes = [frame for clip in shown for frame in clip.frames]
            hold = int(rng.integers(2, LONGEST_HOLD + 1)) if rng.random() < HOLD_SHARE else 1
            asked = [random_clip_questions(clip, clip_questions_asked, rng) for clip in shown]
        else:
            scenes = [make_scene(first + i, *BOARD, "train") for i in range(pictures)]
            asked = [random_questions(scene, questions, rng) for scene in scenes]
        with torch.autocast("cpu", torch.bfloat16):
            tiles = encode_tiles(model, _pixels(scenes)).float()
            tokens = _visual_tokens(model, tiles.repeat_interleave(hold, 0), frames * hold)
            count = tokens.shape[1]
            share = CLIP_DROP_SHARE if frames else PICTURE_DROP_SHARE
            kept = drop_visual_tokens(len(tokens), count, generator, share)
            batch = packer.pack(asked, sequence_positions(count), kept)
            loss = answer_loss(model, tokens, batch, CLIP_EARLY_WEIGHT if frames else 0.0)
        words = model.get_input_embeddings().weight.detach()
        return loss + DESCRIPTION_WEIGHT * description_loss(tiles, scenes, vocabulary, words)

    @torch.no_grad()
    def report(step: int) -> str:
        scenes = [make_scene(i, *BOARD, "validation") for i in range(24)]
        asked = [scene_questions(scene, KINDS, seed=i) for i, scene in enumerate(scenes)]
        lines = [f"pictures: {line_of(scenes, asked, 0)}"]
        clips = [make_clip(i, FRAMES[1], *BOARD, "validation") for i in range(24)]
        frames = [frame for clip in clips for frame in clip.frames]
        asked = [clip_questions(clip, seed=i) for i, clip in enumerate(clips)]
        lines.append(f"clips: {line_of(frames, asked, FRAMES[1])}")
        return "\n  " + "\n  ".join(lines)

    def line_of(scenes: Sequence[Scene], asked: Sequence[Sequence[Question]], frames: int) -> str:
        tokens = _visual_tokens(model, encode_tiles(model, _pixels(scenes)), frames)
        return accuracy_line(model, packer, tokens, sequence_positions(tokens.shape[1]), asked)

    train(model, loss_of_step, settings, checkpoint, report)


def _pixels(scenes: Sequence[Scene]) -> torch.Tensor:
    return tile_pixels([scene.image for scene in scenes])


def _visual_tokens(model: StockModel, tiles: torch.Tensor, frames: int) -> torch.Tensor:
    """Visual tokens of pictures (no frames), or of clips of that many frames."""
    return clip_tokens(model, tiles, frames) if frames else image_tokens(model, tiles)
