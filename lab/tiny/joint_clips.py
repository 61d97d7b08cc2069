"""Train a whole model of any family end to end on images and clips.

As in the training on images alone, the loss is that of the answers plus a small share of the vision
warm-up's loss, and some updates drop visual tokens at random before the language model.
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

from .architecture import StockModel
from .forward import answer_loss
from .grids import (
    CLIP_MIXTURE,
    random_clip_questions,
    random_questions,
)
from .joint import DESCRIPTION_WEIGHT, accuracy_line
from .loop import LoopSettings, train
from .packing import Packer, drop_visual_tokens
from .vision_warmup import description_loss
from .vocabulary import CellVocabulary

CLIP_GRID = (4, 4)
"""Rows and columns of the frames of clips."""


def _no_text(frames: int) -> Sequence[int]:
    return ()


def _always_clip_grid(rng: np.random.Generator) -> tuple[int, int]:
    return CLIP_GRID


@dataclass(frozen=True)
class VisualPath:
    """How a family turns scenes into visual tokens.

    Attributes:
        encode: From B scenes of one shape to the tokens [B, N, D] that describe their cells.
        join: From these tokens and a number of frames F to the visual tokens of the language model:
            [B / F, V, D] for clips, or [B, V, D] for images, where F is 0.
        positions: From rows and columns of cells and a number of frames (0 for an image) to the
            positions of the visual tokens, int64 [axes, V].
        packer: Packer of the family's prompts.
        text: From a number of frames (0 for an image) to the indices of those V tokens that are
            text, such as line breaks between frames, and never dropped.
    """

    encode: Callable[[Sequence[Scene]], torch.Tensor]
    join: Callable[[torch.Tensor, int], torch.Tensor]
    positions: Callable[[tuple[int, int], int], torch.Tensor]
    packer: Packer
    text: Callable[[int], Sequence[int]] = _no_text


@dataclass(frozen=True)
class JointCurriculum:
    """Images, clips and questions of each update.

    Attributes:
        period: One in `period` updates is on images, the others are on clips.
        shape: Draws rows and columns of an update's images.
        images: Images per update if they have 16 cells; fewer if they are larger.
        questions: Questions per 16 cells.
        clips: Clips per update.
        clip_questions: Questions per clip.
        clip_mixture: Relative frequency of each kind of question about clips.
        scenes_per_clip: Minimum and maximum number of scenes in a clip.
        repeated_scene_share: Share of updates on clips that show each scene for several frames.
        max_frames_per_scene: Maximum number of these frames; they teach the model longer videos.
        image_drop_share: Share of updates on images in which visual tokens are dropped.
        clip_drop_share: The same for clips.
        clip_early_weight: `early_weight` of `answer_loss` for clips, because telling frames apart
            is new to a language model that has read images.
        seed: Seed of images, clips and questions.
    """

    period: int = 3
    shape: Callable[[np.random.Generator], tuple[int, int]] = _always_clip_grid
    images: int = 16
    questions: int = 12
    clips: int = 6
    clip_questions: int = 24
    clip_mixture: Mapping[str, float] = field(default_factory=lambda: CLIP_MIXTURE)
    scenes_per_clip: tuple[int, int] = (2, 4)
    repeated_scene_share: float = 0.2
    max_frames_per_scene: int = 4
    image_drop_share: float = 0.6
    clip_drop_share: float = 0.3
    clip_early_weight: float = 0.3
    seed: int = 5


def train_on_images_and_clips(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    path: VisualPath,
    curriculum: JointCurriculum,
    settings: LoopSettings,
    checkpoint: Path,
    frozen: Iterable[str] = (),
) -> None:
    """Train a model, in place.

    Args:
        model: The model; its tower and language model can already read images.
        tokenizer: Its tokenizer.
        path: How its family computes visual tokens.
        curriculum: Images, clips and questions of each update.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        frozen: Names of parameters not to train; a frozen tower does not contribute to the loss.
    """
    vocabulary, seed = CellVocabulary(tokenizer), curriculum.seed

    def loss_of_step(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        first = (seed << 32) + step * curriculum.images
        if step % curriculum.period:
            scenes, asked, frames, frames_per_scene = _clip_batch(curriculum, first, rng)
        else:
            scenes, asked = _image_batch(curriculum, first, rng)
            frames, frames_per_scene = 0, 1
        with torch.autocast("cpu", torch.bfloat16):
            encoded = path.encode(scenes).float()
            tokens = path.join(
                encoded.repeat_interleave(frames_per_scene, 0), frames * frames_per_scene
            )
            share = curriculum.clip_drop_share if frames else curriculum.image_drop_share
            text = path.text(frames * frames_per_scene)
            batch_size, count, _ = tokens.shape
            kept = drop_visual_tokens(batch_size, count, generator, share, text=text)
            batch = path.packer.pack(
                asked, _positions(path, scenes, frames * frames_per_scene), kept
            )
            early = curriculum.clip_early_weight if frames else 0.0
            loss = answer_loss(model, tokens, batch, early)
        if not encoded.requires_grad:
            return loss
        words = model.get_input_embeddings().weight.detach()
        return loss + DESCRIPTION_WEIGHT * description_loss(encoded, scenes, vocabulary, words)

    @torch.no_grad()
    def report(step: int) -> str:
        scenes = [make_scene(i, *CLIP_GRID, "validation") for i in range(24)]
        asked = [scene_questions(scene, KINDS, seed=i) for i, scene in enumerate(scenes)]
        lines = [f"images: {line_of(scenes, asked, 0)}"]
        frames = curriculum.scenes_per_clip[1]
        clips = [make_clip(i, frames, *CLIP_GRID, "validation") for i in range(24)]
        scenes = [scene for clip in clips for scene in clip.frames]
        asked = [clip_questions(clip, seed=i) for i, clip in enumerate(clips)]
        lines.append(f"clips: {line_of(scenes, asked, frames)}")
        return "\n  " + "\n  ".join(lines)

    def line_of(scenes: Sequence[Scene], asked: Sequence[Sequence[Question]], frames: int) -> str:
        tokens = path.join(path.encode(scenes), frames)
        positions = _positions(path, scenes, frames)
        return accuracy_line(model, path.packer, tokens, positions, asked, path.text(frames))

    train(model, loss_of_step, settings, checkpoint, report, frozen)


def _image_batch(
    curriculum: JointCurriculum, first: int, rng: np.random.Generator
) -> tuple[list[Scene], list[list[Question]]]:
    """Images from seed `first`, and questions about them."""
    rows, columns = curriculum.shape(rng)
    count = max(1, curriculum.images * 16 // (rows * columns))
    scenes = [make_scene(first + i, rows, columns, "train") for i in range(count)]
    each = curriculum.questions * curriculum.images // count
    return scenes, [random_questions(scene, each, rng) for scene in scenes]


def _clip_batch(
    curriculum: JointCurriculum, first: int, rng: np.random.Generator
) -> tuple[list[Scene], list[list[Question]], int, int]:
    """Scenes of clips from seed `first`, questions, scenes per clip, and frames per scene."""
    scenes_per_clip = int(
        rng.integers(curriculum.scenes_per_clip[0], curriculum.scenes_per_clip[1] + 1)
    )
    clips = [
        make_clip(first + i, scenes_per_clip, *CLIP_GRID, "train") for i in range(curriculum.clips)
    ]
    asked = [
        random_clip_questions(clip, curriculum.clip_questions, rng, curriculum.clip_mixture)
        for clip in clips
    ]
    frames_per_scene = 1
    if rng.random() < curriculum.repeated_scene_share:
        frames_per_scene = int(rng.integers(2, curriculum.max_frames_per_scene + 1))
    return (
        [scene for clip in clips for scene in clip.frames],
        asked,
        scenes_per_clip,
        frames_per_scene,
    )


def _positions(path: VisualPath, scenes: Sequence[Scene], frames: int) -> torch.Tensor:
    return path.positions((scenes[0].rows, scenes[0].columns), frames)
