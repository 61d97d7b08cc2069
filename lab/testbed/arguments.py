"""Command-line arguments that choose questions of the testbed."""

from __future__ import annotations

import argparse
from pathlib import Path

from hf_token_compress.data.composed import scene_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import KINDS as SCENE_KINDS

from ..arguments import comma_list
from .objects.cutouts import CUTOUTS_FOLDER, Cutouts
from .objects.questions import CLIP_KINDS, KINDS
from .samples import SOURCES, object_samples


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add `--source`, `--split`, `--kind` and `--cutouts`."""
    parser.add_argument(
        "--source", choices=SOURCES, default="drawings", help="what the images show"
    )
    parser.add_argument("--split", default="test", help="name of a stream of images")
    parser.add_argument(
        "--kind",
        dest="kinds",
        metavar="KINDS",
        type=comma_list(str),
        help="kinds of questions, between commas; default all",
    )
    parser.add_argument(
        "--cutouts", type=Path, default=CUTOUTS_FOLDER, help="folder of Tux Paint's stamps"
    )


def samples_of(options: argparse.Namespace) -> list[Sample]:
    """The questions that `add_source` and `add_questions` describe; errors of `object_samples`."""
    return object_samples(
        options.kinds or (CLIP_KINDS if options.source == "clips" else KINDS),
        options.per_kind,
        source=options.source,
        seed=options.seed,
        split=options.split,
        cutouts=Cutouts(options.cutouts) if "photographs" in options.source else None,
        per_image=getattr(options, "per_image", 1),
    )


def questions_of(options: argparse.Namespace, **changes: object) -> list[Sample]:
    """Questions for `--model`: composed images for tiny models, for others as `samples_of`.

    Args:
        options: What `add_model`, `add_source` and `add_questions` describe.
        **changes: Options with other values, such as another seed.
    """
    own = argparse.Namespace(**{**vars(options), **changes})
    if not own.model.startswith("tiny-"):
        return samples_of(own)
    return scene_samples(own.kinds or SCENE_KINDS, own.per_kind, seed=own.seed, split=own.split)
