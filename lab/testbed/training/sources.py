"""Where the pictures of the trainings come from, by number."""

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

from lab.testbed.objects.drawn import TRAIN_ARTISTS, make_drawn_picture
from lab.testbed.objects.layout import random_layout
from lab.testbed.objects.picture import Picture, Thing

Source: TypeAlias = Callable[[int], Picture]
"""From a number to a picture."""

_OTHERS = ("rows", "columns", "vocabulary", "on_plates")


def drawn(split: str, **layout: int) -> Source:
    """Drawn pictures, made anew for every number; the held-out artist has no part in them."""

    def source(number: int) -> Picture:
        return make_drawn_picture(number, split, artists=TRAIN_ARTISTS, **layout)

    return source


def random_source(
    rng: np.random.Generator, others: Sequence[tuple[Source, float]], most_things: int = 16
) -> Source:
    """One of the other sources, or drawn pictures of a random layout for training.

    Args:
        rng: Source of the choice.
        others: Sources beside drawn pictures, with how often each is chosen.
        most_things: Most things of a drawn picture.
    """
    chance = rng.random()
    for source, share in others:
        if chance < share:
            return source
        chance -= share
    return drawn("train", **random_layout(rng, most_things))


def stored(path: Path) -> Source:
    """Pictures that `store` wrote; numbers beyond the last begin anew.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r}: make it with the step 'pictures'."
        )

    @lru_cache(maxsize=1)
    def archive(process: int) -> tuple[zipfile.ZipFile, list[dict[str, Any]]]:
        # Every process opens the file for itself: a place in a file is shared by forks.
        opened = zipfile.ZipFile(path)
        return opened, json.loads(opened.read("pictures.json"))

    def source(number: int) -> Picture:
        opened, entries = archive(os.getpid())
        index = number % len(entries)
        image = Image.open(io.BytesIO(opened.read(f"{index:06}.webp"))).convert("RGB")
        return _picture(image, entries[index])

    return source


def store(path: Path, pictures: Iterable[Picture]) -> None:
    """Write pictures to one file, as WebP of quality 90, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    entries = []
    with zipfile.ZipFile(partial, "w") as archive:
        for index, picture in enumerate(pictures):
            buffer = io.BytesIO()
            picture.image.save(buffer, "webp", quality=90)
            archive.writestr(f"{index:06}.webp", buffer.getvalue())
            things = [asdict(thing) for thing in picture.things]
            others = {name: getattr(picture, name) for name in _OTHERS}
            entries.append({"things": things, **others})
        archive.writestr("pictures.json", json.dumps(entries))
    partial.replace(path)


def _picture(image: Image.Image, entry: Mapping[str, Any]) -> Picture:
    things = tuple(Thing(**{**thing, "box": tuple(thing["box"])}) for thing in entry["things"])
    others: dict[str, Any] = {name: entry[name] for name in _OTHERS}
    others["vocabulary"] = tuple(others["vocabulary"])
    return Picture(image, things, **others)
