"""Make and store the images that are slow to make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.progress import track

from ..objects.cutouts import Cutouts
from ..objects.photographed import make_photographed_scene
from ..objects.rendered import make_rendered_scene
from ..objects.scene import ObjectScene
from .sources import store

COUNTS = {"train": 2000, "validation": 48}


def make_stores(work: Path, cutouts: Path | None) -> None:
    """Write files of photographed and rendered images, unless they exist.

    Args:
        work: Folder to write to.
        cutouts: Folder of cutouts; without it there are no photographed images.
    """
    makers: dict[str, Callable[[int, str], ObjectScene]] = {"rendered": make_rendered_scene}
    if cutouts is not None:
        makers["photographs"] = partial(make_photographed_scene, cutouts=Cutouts(cutouts))
    for title, make in makers.items():
        for split, count in COUNTS.items():
            path = work / f"{title}-{split}.zip"
            if not path.is_file():
                numbers = track(range(count), f"{title}, {split}")
                store(path, (make(number, split) for number in numbers))
