"""Write questions as JSON lines with their images, for `--data` of the library's commands.

python -m lab.testbed.questions_file --source drawings --per-kind 50 --out FOLDER
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from hf_token_compress.data.sample import Sample

from ..arguments import add_questions, make_parser, positive
from .arguments import add_source, samples_of

DATA_FILE = "questions.jsonl"


def export_samples(samples: Sequence[Sample], folder: Path) -> None:
    """Write one line per question and one file per image.

    A line has "image" (a path relative to the folder) or "video" (a list of paths of frames),
    "question", "answer", "kind", "relevant_boxes" ([left, top, right, bottom] in pixels) and, for
    clips, "relevant_frames".

    Args:
        samples: The questions.
        folder: Folder to write to; it is made if it does not exist.

    Raises:
        FileExistsError: The folder already has questions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / DATA_FILE
    if file.exists():
        raise FileExistsError(f"The folder {str(folder)!r} already has a {DATA_FILE}.")
    written: dict[int, str] = {}
    lines = [json.dumps(_row(sample, folder, written)) for sample in track(samples, "images")]
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
    """Name of the image's file, which all questions about the image share."""
    if id(image) not in written:
        written[id(image)] = f"{len(written):06}.png"
        image.save(folder / written[id(image)])
    return written[id(image)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the questions."""
    parser = make_parser("lab.testbed.questions_file", __doc__)
    add_source(parser)
    add_questions(parser, per_kind=50)
    parser.add_argument(
        "--per-image", type=positive, default=1, help="questions of each kind about one image"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        samples = samples_of(options)
        export_samples(samples, options.out)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{len(samples)} questions in {options.out / DATA_FILE}")


if __name__ == "__main__":
    main()
