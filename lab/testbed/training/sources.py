"""Sources of training images, by number."""

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
"""From a number to a scene."""

_OTHERS = ("rows", "columns", "vocabulary", "on_plates")


def drawn(split: str, **layout: int) -> Source:
    """Drawn images, composed on demand, without the held-out artist."""

    def source(number: int) -> ObjectScene:
        return make_drawn_scene(number, split, artists=TRAIN_ARTISTS, **layout)

    return source


def random_source(
    rng: np.random.Generator, others: Sequence[tuple[Source, float]], max_objects: int = 16
) -> Source:
    """Choose one of the other sources, or drawings with a random layout.

    Args:
        rng: Generator for the choice.
        others: Sources other than drawings, with the share of each.
        max_objects: Maximum number of objects in a drawn image.
    """
    chance = rng.random()
    for source, share in others:
        if chance < share:
            return source
        chance -= share
    return drawn("train", **random_layout(rng, max_objects))


def stored(path: Path) -> Source:
    """Images written by `store`; numbers beyond the last start again at the first.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: make it with the step 'images'.")

    @lru_cache(maxsize=1)
    def archive(process: int) -> tuple[zipfile.ZipFile, list[dict[str, Any]]]:
        # Each process opens the file itself: forks share the position in an open file.
        opened = zipfile.ZipFile(path)
        return opened, json.loads(opened.read("scenes.json"))

    def source(number: int) -> ObjectScene:
        opened, entries = archive(os.getpid())
        index = number % len(entries)
        image = Image.open(io.BytesIO(opened.read(f"{index:06}.webp"))).convert("RGB")
        return _scene(image, entries[index])

    return source


def store(path: Path, images: Iterable[ObjectScene]) -> None:
    """Write images atomically to one file, as WebP with quality 90."""
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


def _scene(image: Image.Image, entry: Mapping[str, Any]) -> ObjectScene:
    objects = tuple(SceneObject(**{**obj, "box": tuple(obj["box"])}) for obj in entry["objects"])
    others: dict[str, Any] = {name: entry[name] for name in _OTHERS}
    others["vocabulary"] = tuple(others["vocabulary"])
    return ObjectScene(image, objects, **others)
