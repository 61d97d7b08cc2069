"""Write questions as JSON lines and pictures, for other tools and for `collect --data`.

python -m lab.testbed.questions_file --source drawings --per-kind 50 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from hf_token_compress.data.sample import Sample
from lab.testbed.objects.cutouts import STAMPS_FOLDER, Stamps
from lab.testbed.objects.questions import CLIP_KINDS, KINDS
from lab.testbed.samples import SOURCES, things_samples

DATA_FILE = "questions.jsonl"


def export_samples(samples: Sequence[Sample], folder: Path) -> None:
    """Write a line for every question, and every picture once.

    A line has "image" (a path relative to the folder) or "video" (a list of paths of frames),
    "question", "answer", "kind", "relevant_boxes" ([left, top, right, bottom] in pixels) and, for
    clips, "relevant_frames".

    Args:
        samples: The questions.
        folder: Where to write to; it is made.

    Raises:
        FileExistsError: The folder holds questions already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / DATA_FILE
    if file.exists():
        raise FileExistsError(f"The folder {str(folder)!r} holds {DATA_FILE} already.")
    written: dict[int, str] = {}
    lines = [json.dumps(_row(sample, folder, written)) for sample in track(samples, "pictures")]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(sample: Sample, folder: Path, written: dict[int, str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question": sample.question,
        "answer": sample.answer,
        "kind": sample.kind,
        "relevant_boxes": sample.relevant_boxes,
    }
    if not sample.frames:
        return {"image": _written(sample.image, folder, written), **row}
    frames = [_written(frame, folder, written) for frame in sample.frames]
    return {"video": frames, **row, "relevant_frames": sample.relevant_frames}


def _written(image: Image.Image, folder: Path, written: dict[int, str]) -> str:
    """Name of the picture's file; questions about one picture share it."""
    if id(image) not in written:
        written[id(image)] = f"{len(written):06}.png"
        image.save(folder / written[id(image)])
    return written[id(image)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the questions."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.testbed.questions_file",
        description="Write questions about pictures of things as JSON lines.",
    )
    parser.add_argument("--source", choices=SOURCES, default="drawings")
    parser.add_argument("--kinds", nargs="+", help="kinds of questions; by default all")
    parser.add_argument("--per-kind", type=int, default=50, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=0, help="number of the first picture")
    parser.add_argument("--split", default="test", help="name of a stream of pictures")
    parser.add_argument("--stamps", type=Path, default=STAMPS_FOLDER, help="folder of stamps")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    kinds = options.kinds or (CLIP_KINDS if options.source == "clips" else KINDS)
    try:
        stamps = Stamps(options.stamps) if "photographs" in options.source else None
        samples = things_samples(
            kinds,
            options.per_kind,
            source=options.source,
            seed=options.seed,
            split=options.split,
            stamps=stamps,
        )
        export_samples(samples, options.out)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{len(samples)} questions in {options.out / DATA_FILE}")


if __name__ == "__main__":
    main()
