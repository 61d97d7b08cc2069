"""Where the images of the trainings come from, by number."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..objects.drawn import TRAIN_ARTISTS, make_drawn_scene
from ..objects.layout import random_layout
from ..objects.scene import ObjectScene, SceneObject

Source: TypeAlias = Callable[[int], ObjectScene]
"""From a number to an image."""

_OTHERS = ("rows", "columns", "vocabulary", "on_plates")


def drawn(split: str, **layout: int) -> Source:
    """Drawn images, made anew for every number; the held-out artist has no part in them."""

    def source(number: int) -> ObjectScene:
        return make_drawn_scene(number, split, artists=TRAIN_ARTISTS, **layout)

    return source


def random_source(
    rng: np.random.Generator, others: Sequence[tuple[Source, float]], max_objects: int = 16
) -> Source:
    """One of the other sources, or drawn images of a random layout for training.

    Args:
        rng: Source of the choice.
        others: Sources beside drawn images, with how often each is chosen.
        max_objects: Most objects of a drawn image.
    """
    chance = rng.random()
    for source, share in others:
        if chance < share:
            return source
        chance -= share
    return drawn("train", **random_layout(rng, max_objects))


def stored(path: Path) -> Source:
    """Images that `store` wrote; numbers beyond the last begin anew.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: make it with the step 'images'.")

    @lru_cache(maxsize=1)
    def archive(process: int) -> tuple[zipfile.ZipFile, list[dict[str, Any]]]:
        # Every process opens the file for itself: a place in a file is shared by forks.
        opened = zipfile.ZipFile(path)
        return opened, json.loads(opened.read("scenes.json"))

    def source(number: int) -> ObjectScene:
        opened, entries = archive(os.getpid())
        index = number % len(entries)
        image = Image.open(io.BytesIO(opened.read(f"{index:06}.webp"))).convert("RGB")
        return _picture(image, entries[index])

    return source


def store(path: Path, images: Iterable[ObjectScene]) -> None:
    """Write images to one file, as WebP of quality 90, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    entries = []
    with zipfile.ZipFile(partial, "w") as archive:
        for index, scene in enumerate(images):
            buffer = io.BytesIO()
            scene.image.save(buffer, "webp", quality=90)
            archive.writestr(f"{index:06}.webp", buffer.getvalue())
            objects = [asdict(obj) for obj in scene.objects]
            others = {name: getattr(scene, name) for name in _OTHERS}
            entries.append({"objects": objects, **others})
        archive.writestr("scenes.json", json.dumps(entries))
    partial.replace(path)


def _picture(image: Image.Image, entry: Mapping[str, Any]) -> ObjectScene:
    objects = tuple(SceneObject(**{**obj, "box": tuple(obj["box"])}) for obj in entry["objects"])
    others: dict[str, Any] = {name: entry[name] for name in _OTHERS}
    others["vocabulary"] = tuple(others["vocabulary"])
    return ObjectScene(image, objects, **others)
