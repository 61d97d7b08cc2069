"""Cut-out photographs of named objects, and photographs as backgrounds.

The cutouts are the stamps of Tux Paint, read from where the Debian package tuxpaint-stamps-default
(GPL-2) installs them. The photographs come from the Python package scikit-image. No file is copied.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from .scene import SIDE

CUTOUTS_FOLDER = Path("/usr/share/tuxpaint/stamps")
"""Where the Debian package installs the stamps."""

HELD_OUT = "held-out"
"""Split that shows only the cutouts that no other split shows."""

_LARGEST = 128
_HOLD_OUT_FROM = 3
_BACKGROUNDS = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "rocket.jpg",
)

_FILES = {
    "frog": "animals/amphibians/frog animals/amphibians/frog-1",
    "penguin": "animals/birds/penguin animals/birds/little-penguin "
    "animals/birds/magellanic_penguin",
    "duck": "animals/birds/duck animals/birds/drake",
    "chicken": "animals/birds/hen animals/birds/chicken_profile animals/birds/rooster",
    "owl": "animals/birds/owl",
    "fish": "animals/fish/bluegroper animals/fish/clownfish animals/fish/coraltrout "
    "animals/fish/stripedfish animals/fish/moonwrasse animals/fish/butterflyfish",
    "bee": "animals/insects/bee",
    "bear": "animals/mammals/bears/bear animals/mammals/bears/european-bear",
    "cow": "animals/mammals/bovines/cow animals/mammals/bovines/cow_white",
    "sheep": "animals/mammals/bovines/sheep animals/mammals/bovines/ram "
    "animals/mammals/bovines/sheep_lamb",
    "lion": "animals/mammals/cats/lion animals/mammals/cats/lion-2",
    "tiger": "animals/mammals/cats/tiger animals/mammals/cats/tiger_sumatran",
    "deer": "animals/mammals/deer/deer animals/mammals/deer/doe animals/mammals/deer/wapiti",
    "dog": "animals/mammals/dogs/dog animals/mammals/dogs/dingo",
    "horse": "animals/mammals/equines/horse",
    "donkey": "animals/mammals/equines/donkey animals/mammals/equines/donkey_eating",
    "elephant": "animals/mammals/elephant",
    "pig": "animals/mammals/pig animals/mammals/pig_golden animals/mammals/pig_golden2",
    "rabbit": "animals/mammals/rodents/rabbit animals/mammals/rodents/rabbit-2 "
    "animals/mammals/rabbit_little",
    "mouse": "animals/mammals/rodents/mouse",
    "squirrel": "animals/mammals/rodents/squirrel",
    "dolphin": "animals/mammals/aquatic/dolphin",
    "whale": "animals/mammals/aquatic/whale animals/mammals/aquatic/orca",
    "apple": "food/fruit/apple_fuji food/fruit/apple_red food/fruit/apple_sierra_beauty "
    "food/fruit/apple_granny_smith food/fruit/apple_green",
    "banana": "food/fruit/banana",
    "lemon": "food/fruit/lemon",
    "pear": "food/fruit/pear",
    "pineapple": "food/fruit/pineapple",
    "strawberry": "food/fruit/strawberry food/fruit/Strawberry2",
    "cherry": "food/fruit/Cherry_Stella",
    "pizza": "food/pizza",
    "carrot": "food/vegetables/carrot",
    "corn": "food/vegetables/corn",
    "tomato": "food/vegetables/tomato",
    "mushroom": "food/vegetables/mushroom plants/mushrooms/cep plants/mushrooms/cep-1 "
    "plants/mushrooms/cep-2",
    "onion": "food/vegetables/onion",
    "potato": "food/vegetables/potato",
    "pepper": "food/vegetables/pepper food/vegetables/yellowpepper",
    "hat": "clothes/hats/blue_fedora clothes/hats/sombrero clothes/hats/tophat "
    "clothes/hats/green_fedora",
    "shirt": "clothes/t_shirt clothes/t_tshirt clothes/t_poloshirt",
    "glove": "clothes/t_glove",
    "sock": "clothes/t_sock",
    "guitar": "hobbies/music/string/guitar_classical hobbies/music/string/guitar2 "
    "hobbies/music/string/guitar_electric",
    "violin": "hobbies/music/string/violin",
    "drum": "hobbies/music/percussion/drum_tomtom_floor",
    "camera": "hobbies/camera_35mm",
    "key": "household/key",
    "hammer": "household/tools/hammer",
    "candle": "seasonal/candle",
    "moon": "space/moon/moon_full space/moon/moon_3qt space/moon/moon_crescent",
    "car": "vehicles/auto/sedan vehicles/auto/beetle vehicles/auto/sportscar2 "
    "vehicles/emergency/sedan_police",
    "truck": "vehicles/auto/truck vehicles/garbagetruck vehicles/emergency/firetruck",
    "bus": "vehicles/masstransit/green_korean_bus",
    "plane": "vehicles/flight/planes/747",
    "rose": "plants/flowers/rose",
    "sunflower": "plants/flowers/red-gazania plants/flowers/yellow-flower",
    "tree": "plants/trees/birch plants/trees/holm_oak plants/trees/tree336",
    "flag": "town/flags/redflag town/flags/greenflag town/flags/whiteflag",
}

PHOTOGRAPHED_NAMES: tuple[str, ...] = tuple(_FILES)
"""Names of the photographed objects."""


class Cutouts:
    """Cutouts by name of the object.

    Args:
        folder: Folder of Tux Paint's stamps.

    Raises:
        FileNotFoundError: A cutout is missing.
    """

    def __init__(self, folder: Path = CUTOUTS_FOLDER) -> None:
        self._folder = folder
        self._images: dict[str, Image.Image] = {}
        for name in PHOTOGRAPHED_NAMES:
            for file in _FILES[name].split():
                if not (folder / f"{file}.png").is_file():
                    raise FileNotFoundError(
                        f"There is no cutout {file!r} in {str(folder)!r}: install the Debian "
                        "package tuxpaint-stamps-default, or pass the folder of its stamps."
                    )

    def names(self, split: str) -> tuple[str, ...]:
        """Names that a split can show."""
        return tuple(name for name in PHOTOGRAPHED_NAMES if self.of(name, split))

    @staticmethod
    def of(name: str, split: str) -> list[str]:
        """Cutout files of a name in a split; the last of three or more is held out."""
        cutouts = _FILES[name].split()
        held_out = cutouts[-1:] if len(cutouts) >= _HOLD_OUT_FROM else []
        return held_out if split == HELD_OUT else cutouts[: len(cutouts) - len(held_out)]

    def image(self, file: str) -> Image.Image:
        """The cutout, RGBA, without empty margins, at most 128 pixels per side."""
        if file not in self._images:
            image = Image.open(self._folder / f"{file}.png").convert("RGBA")
            image = image.crop(image.getchannel("A").getbbox())
            image.thumbnail((_LARGEST, _LARGEST))
            self._images[file] = image
        return self._images[file]


def photographic_background(rng: np.random.Generator) -> Image.Image:
    """A square crop of a photograph, 224 pixels per side, flipped half of the time.

    Raises:
        ImportError: scikit-image, which contains the photographs, is not installed.
    """
    photographs = _photographs()
    photograph = photographs[rng.integers(len(photographs))]
    side = int(rng.integers(SIDE // 2, min(photograph.size) + 1))
    left = int(rng.integers(0, photograph.width - side + 1))
    top = int(rng.integers(0, photograph.height - side + 1))
    square = photograph.crop((left, top, left + side, top + side))
    if rng.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


@cache
def _photographs() -> list[Image.Image]:
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImportError(
            "Photographed images need the photographs of scikit-image: pip install scikit-image."
        )
    folder = Path(spec.origin).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in _BACKGROUNDS]
