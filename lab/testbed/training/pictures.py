"""Make and store the pictures that take long to make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.progress import track

from lab.testbed.objects.cutouts import Stamps
from lab.testbed.objects.photographed import make_photographed_picture
from lab.testbed.objects.picture import Picture
from lab.testbed.objects.rendered import make_rendered_picture
from lab.testbed.training.sources import store

COUNTS = {"train": 2000, "validation": 48}


def make_stores(work: Path, stamps: Path | None) -> None:
    """Write the files of photographed and rendered pictures that the folder lacks.

    Args:
        work: Folder to write to.
        stamps: Folder of stamps; without it no photographs are made.
    """
    makers: dict[str, Callable[[int, str], Picture]] = {"rendered": make_rendered_picture}
    if stamps is not None:
        makers["photographs"] = partial(make_photographed_picture, stamps=Stamps(stamps))
    for title, make in makers.items():
        for split, count in COUNTS.items():
            path = work / f"{title}-{split}.zip"
            if not path.is_file():
                numbers = track(range(count), f"{title}, {split}")
                store(path, (make(number, split) for number in numbers))
