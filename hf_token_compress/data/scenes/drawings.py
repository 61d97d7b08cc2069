"""The drawings that scenes are made of: every concept, drawn by several artists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

ATLAS_FOLDER = Path(__file__).with_name("drawings")
"""Folder of the atlas that comes with the library."""


@dataclass(frozen=True, eq=False, repr=False)
class Drawings:
    """A set of square drawings with transparent surroundings.

    Attributes:
        names: Concept names, in atlas order.
        artists: Artist names, in atlas order.
        images: RGBA image by (name, artist), all of one size. An artist may lack concepts.
    """

    names: list[str]
    artists: list[str]
    images: dict[tuple[str, str], Image.Image]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def drawn_names(self) -> list[str]:
        """Concepts that somebody drew."""
        return [name for name in self.names if self.artists_of(name)]

    def artists_of(self, name: str) -> list[str]:
        """Artists who drew the concept `name`."""
        return [artist for artist in self.artists if (name, artist) in self.images]

    def image(self, name: str, artist: str) -> Image.Image:
        """The drawing of `name` by `artist`, RGBA; do not change it in place.

        Raises:
            KeyError: There is no such drawing.
        """
        return self.images[name, artist]

    def save(self, folder: str | Path) -> None:
        """Write `atlas.webp` (a row per concept, a column per artist) and `index.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        size = next(iter(self.images.values())).width
        atlas = Image.new("RGBA", (size * len(self.artists), size * len(self.names)))
        for (name, artist), image in self.images.items():
            left, top = self.artists.index(artist) * size, self.names.index(name) * size
            atlas.paste(image, (left, top))
        atlas.save(folder / "atlas.webp", lossless=True, quality=100, method=6)
        index = {
            "size": size,
            "artists": self.artists,
            "names": {name: self.artists_of(name) for name in self.names},
        }
        (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Drawings:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: If the folder holds no atlas.
        """
        folder = Path(folder)
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        size: int = index["size"]
        atlas = Image.open(folder / "atlas.webp").convert("RGBA")
        images = {}
        for row, (name, artists) in enumerate(index["names"].items()):
            for artist in artists:
                left, top = index["artists"].index(artist) * size, row * size
                images[name, artist] = atlas.crop((left, top, left + size, top + size))
        return cls(list(index["names"]), index["artists"], images)


@cache
def _shipped() -> Drawings:
    return Drawings.load(ATLAS_FOLDER)


def load_drawings(folder: str | Path | None = None) -> Drawings:
    """Load an atlas of drawings; without `folder`, the one that comes with the library.

    Raises:
        FileNotFoundError: If the folder holds no atlas.
    """
    return _shipped() if folder is None else Drawings.load(folder)
