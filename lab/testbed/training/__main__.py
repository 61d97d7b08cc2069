"""Train the testbed's own parts, one command per step; a stopped step resumes.

    python -m lab.testbed.training images --work FOLDER --cutouts FOLDER
    python -m lab.testbed.training projector --work FOLDER
    python -m lab.testbed.training language --work FOLDER
    python -m lab.testbed.training export --work FOLDER --out FOLDER
    python -m lab.testbed.training accuracy --cutouts FOLDER

The first step makes the photographed and rendered images, which takes long; drawn images are made
during training. Without the first step, training uses drawings only. The last step measures the
trained testbed in `weights/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...arguments import add_questions, add_threads, make_parser, positive, set_threads
from ...tiny.loop import LoopSettings, averaged_state
from ...tiny.packing import Packer
from ..assembly import assemble
from ..processor import BEFORE_ANSWER, CLOSING, OPENING
from ..vision_tower import PATCHES
from .accuracy import accuracy_lines
from .curriculum import Curriculum, curriculum_stages
from .export import export
from .images import make_stores
from .language import train_language
from .projector import LabelledImages, warm_up_projector
from .validation import (
    other_sources,
    validation_batches,
    validation_images,
    validation_sources,
)

PROJECTOR = LoopSettings(1500, 1.5e-3, report_every=250, save_every=250, ema=0.99)
LANGUAGE = LoopSettings(528, 1e-3, warmup=20, report_every=120, save_every=40, ema=0.97)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    options = _options(arguments)
    set_threads(options)
    if options.step == "accuracy":
        for line in accuracy_lines(options.per_kind, seed=options.seed, cutouts=options.cutouts):
            print(line, flush=True)
        return
    if options.step == "images":
        make_stores(options.work, options.cutouts)
        return
    if options.step == "export":
        export(options.work / "language.pt", options.out)
        return
    model, processor = assemble()
    model = model.to(options.device).train()
    model.model.vision_tower.eval().requires_grad_(False)
    if options.step == "projector":
        _projector(options, model, processor)
    else:
        _language(options, model, processor)


def _projector(options: argparse.Namespace, model: Any, processor: Any) -> None:
    settings = _shortened(PROJECTOR, options.steps)
    images = LabelledImages(
        other_sources(options.work), settings.steps, PATCHES, options.images or 32
    )
    validation = validation_images(validation_sources(options.work), PATCHES)
    checkpoint = options.work / "projector.pt"
    warm_up_projector(model, processor, images, validation, settings, checkpoint, options.workers)


def _language(options: argparse.Namespace, model: Any, processor: Any) -> None:
    settings = _shortened(LANGUAGE, options.steps)
    projector = averaged_state(options.work / "projector.pt")
    model.model.multi_modal_projector.float().load_state_dict(projector)
    tokenizer = processor.tokenizer
    chat = Packer(tokenizer, OPENING, CLOSING, before_answer=BEFORE_ANSWER)
    bare = Packer(tokenizer, OPENING, CLOSING, turn="", before_answer=BEFORE_ANSWER)
    curriculum = Curriculum(
        {"chat": chat, "bare": bare},
        curriculum_stages(settings.steps),
        other_sources(options.work),
        patches=PATCHES,
        images=options.images or 48,
    )
    validation = validation_batches(validation_sources(options.work), chat, PATCHES)
    train_language(
        model, processor, curriculum, validation, settings, options.work, options.workers
    )


def _shortened(settings: LoopSettings, steps: int | None) -> LoopSettings:
    return settings if steps is None else LoopSettings(**{**vars(settings), "steps": steps})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("lab.testbed.training", __doc__)
    parser.add_argument("step", choices=("images", "projector", "language", "export", "accuracy"))
    parser.add_argument("--work", type=Path, help="folder of stored images and checkpoints")
    parser.add_argument("--out", type=Path, help="folder to write to, for export")
    parser.add_argument("--cutouts", type=Path, help="folder of Tux Paint's stamps")
    add_questions(parser, per_kind=100)
    parser.add_argument("--device", default="cpu", help="device to train on")
    parser.add_argument("--steps", type=positive, help="number of updates; default as published")
    parser.add_argument("--images", type=positive, help="images per update")
    parser.add_argument("--workers", type=int, default=0, help="processes that make images")
    add_threads(parser)
    options = parser.parse_args(arguments)
    if options.step != "accuracy" and options.work is None:
        parser.error(f"{options.step} needs --work")
    if options.step == "export" and options.out is None:
        parser.error("export needs --out")
    return options


if __name__ == "__main__":
    main()
