"""Train a whole model end to end on pictures and on clips, of whatever family.

As in the training on pictures alone, the loss is on answers plus a little of the vision warm-up's,
and in a part of the updates visual tokens are dropped at random before the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.data.scenes import (
    KINDS,
    Question,
    Scene,
    clip_questions,
    make_clip,
    make_scene,
    scene_questions,
)
from lab.tiny.architecture import StockModel
from lab.tiny.boards import (
    CLIP_MIXTURE,
    random_clip_questions,
    random_questions,
)
from lab.tiny.forward import answer_loss
from lab.tiny.joint import DESCRIPTION_WEIGHT, accuracy_line
from lab.tiny.loop import LoopSettings, train
from lab.tiny.packing import Packer, drop_visual_tokens
from lab.tiny.vision_warmup import description_loss
from lab.tiny.vocabulary import CellVocabulary

CLIP_BOARD = (4, 4)
"""Rows and columns of the frames of clips."""


def _no_text(frames: int) -> Sequence[int]:
    return ()


def _always_clip_board(rng: np.random.Generator) -> tuple[int, int]:
    return CLIP_BOARD


@dataclass(frozen=True)
class VisualPath:
    """How boards become visual tokens: the shortcuts of one family.

    Attributes:
        encode: From B scenes of one shape to the (B, N, D) tokens that describe their cells.
        join: From those and a number of frames F to the visual tokens that the language model
            sees: (B / F, V, D) of clips, or (B, V, D) of pictures where F is 0.
        positions: From rows and columns of cells and a number of frames, 0 for a picture, to the
            (A, V) int64 positions of the visual tokens.
        packer: Packs prompts of the family.
        text: From a number of frames, 0 for a picture, to what of those V tokens is text, such as
            line breaks between frames: it is never dropped.
    """

    encode: Callable[[Sequence[Scene]], torch.Tensor]
    join: Callable[[torch.Tensor, int], torch.Tensor]
    positions: Callable[[tuple[int, int], int], torch.Tensor]
    packer: Packer
    text: Callable[[int], Sequence[int]] = _no_text


@dataclass(frozen=True)
class Lessons:
    """What the updates show and ask.

    Attributes:
        period: One update of so many is on pictures, the others are on clips.
        shape: Draws rows and columns of an update's pictures.
        pictures: Pictures of 16 cells per update; fewer where they are larger.
        questions: Questions per 16 cells.
        clips: Clips per update.
        clip_questions: Questions per clip.
        clip_mixture: How often each kind of question is asked about clips.
        boards: Fewest and most boards of a clip.
        hold_share: Share of the updates on clips in which every board lasts for several frames.
        longest_hold: The most frames it lasts then, so that the model can read longer videos.
        picture_drop_share: Share of the updates on pictures in which visual tokens are dropped.
        clip_drop_share: The same for clips.
        clip_early_weight: Weight of predicting answers about clips before the question ends, as in
            `answer_loss`: to tell frames apart is new to a language model that read pictures.
        seed: Seed of pictures, clips and questions.
    """

    period: int = 3
    shape: Callable[[np.random.Generator], tuple[int, int]] = _always_clip_board
    pictures: int = 16
    questions: int = 12
    clips: int = 6
    clip_questions: int = 24
    clip_mixture: Mapping[str, float] = field(default_factory=lambda: CLIP_MIXTURE)
    boards: tuple[int, int] = (2, 4)
    hold_share: float = 0.2
    longest_hold: int = 4
    picture_drop_share: float = 0.6
    clip_drop_share: float = 0.3
    clip_early_weight: float = 0.3
    seed: int = 5


def train_on_pictures_and_clips(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    path: VisualPath,
    lessons: Lessons,
    settings: LoopSettings,
    checkpoint: Path,
    frozen: Iterable[str] = (),
) -> None:
    """Train a model, in place.

    Args:
        model: The model, whose tower and language model have learned to read pictures.
        tokenizer: Its tokenizer.
        path: How its family sees boards.
        lessons: What to show and ask.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        frozen: Parameters not to train; a frozen tower is no part of the loss.
    """
    vocabulary, seed = CellVocabulary(tokenizer), lessons.seed

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        first = (seed << 32) + step * lessons.pictures
        if step % lessons.period:
            scenes, asked, frames, hold = _clip_lesson(lessons, first, rng)
        else:
            scenes, asked = _picture_lesson(lessons, first, rng)
            frames, hold = 0, 1
        with torch.autocast("cpu", torch.bfloat16):
            encoded = path.encode(scenes).float()
            tokens = path.join(encoded.repeat_interleave(hold, 0), frames * hold)
            share = lessons.clip_drop_share if frames else lessons.picture_drop_share
            text = path.text(frames * hold)
            batch_size, count, _ = tokens.shape
            kept = drop_visual_tokens(batch_size, count, generator, share, text=text)
            batch = path.packer.pack(asked, _positions(path, scenes, frames * hold), kept)
            early = lessons.clip_early_weight if frames else 0.0
            loss = answer_loss(model, tokens, batch, early)
        if not encoded.requires_grad:
            return loss
        words = model.get_input_embeddings().weight.detach()
        return loss + DESCRIPTION_WEIGHT * description_loss(encoded, scenes, vocabulary, words)

    @torch.no_grad()
    def report(step: int) -> str:
        scenes = [make_scene(i, *CLIP_BOARD, "validation") for i in range(24)]
        asked = [scene_questions(scene, KINDS, seed=i) for i, scene in enumerate(scenes)]
        lines = [f"pictures: {line_of(scenes, asked, 0)}"]
        frames = lessons.boards[1]
        clips = [make_clip(i, frames, *CLIP_BOARD, "validation") for i in range(24)]
        scenes = [scene for clip in clips for scene in clip.frames]
        asked = [clip_questions(clip, seed=i) for i, clip in enumerate(clips)]
        lines.append(f"clips: {line_of(scenes, asked, frames)}")
        return "\n  " + "\n  ".join(lines)

    def line_of(scenes: Sequence[Scene], asked: Sequence[Sequence[Question]], frames: int) -> str:
        tokens = path.join(path.encode(scenes), frames)
        positions = _positions(path, scenes, frames)
        return accuracy_line(model, path.packer, tokens, positions, asked, path.text(frames))

    train(model, loss_of_step, settings, checkpoint, report, frozen)


def _picture_lesson(
    lessons: Lessons, first: int, rng: np.random.Generator
) -> tuple[list[Scene], list[list[Question]]]:
    """Pictures from seed `first` on, and questions about them."""
    rows, columns = lessons.shape(rng)
    count = max(1, lessons.pictures * 16 // (rows * columns))
    scenes = [make_scene(first + i, rows, columns, "train") for i in range(count)]
    each = lessons.questions * lessons.pictures // count
    return scenes, [random_questions(scene, each, rng) for scene in scenes]


def _clip_lesson(
    lessons: Lessons, first: int, rng: np.random.Generator
) -> tuple[list[Scene], list[list[Question]], int, int]:
    """Boards of clips from seed `first` on, questions, boards a clip, and frames that one lasts."""
    boards = int(rng.integers(lessons.boards[0], lessons.boards[1] + 1))
    clips = [make_clip(first + i, boards, *CLIP_BOARD, "train") for i in range(lessons.clips)]
    asked = [
        random_clip_questions(clip, lessons.clip_questions, rng, lessons.clip_mixture)
        for clip in clips
    ]
    hold = 1
    if rng.random() < lessons.hold_share:
        hold = int(rng.integers(2, lessons.longest_hold + 1))
    return [scene for clip in clips for scene in clip.frames], asked, boards, hold


def _positions(path: VisualPath, scenes: Sequence[Scene], frames: int) -> torch.Tensor:
    return path.positions((scenes[0].rows, scenes[0].columns), frames)
