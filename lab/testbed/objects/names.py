"""Names of objects and colours; each is one token of SmolLM2 after a space."""

from __future__ import annotations

from hf_token_compress.data.scenes import COLOURS as _COLOURS

from .cutouts import PHOTOGRAPHED_NAMES

COLOURS = dict(_COLOURS)
"""RGB by name."""

NUMBERS = ("one", "two", "three", "four", "five", "six")
"""Words for rows, columns and counts."""

DRAWN_NAMES: tuple[str, ...] = (
    "cat",
    "dog",
    "rabbit",
    "bear",
    "lion",
    "cow",
    "pig",
    "frog",
    "monkey",
    "penguin",
    "owl",
    "bee",
    "butterfly",
    "snail",
    "turtle",
    "octopus",
    "crab",
    "fish",
    "whale",
    "elephant",
    "spider",
    "apple",
    "lemon",
    "banana",
    "watermelon",
    "strawberry",
    "cherry",
    "pineapple",
    "tomato",
    "corn",
    "carrot",
    "mushroom",
    "cheese",
    "pizza",
    "cake",
    "coffee",
    "tree",
    "cactus",
    "rose",
    "sunflower",
    "cloud",
    "rainbow",
    "moon",
    "star",
    "fire",
    "car",
    "bus",
    "bicycle",
    "rocket",
    "boat",
    "house",
    "castle",
    "clock",
    "phone",
    "camera",
    "key",
    "hammer",
    "book",
    "balloon",
    "umbrella",
    "shirt",
    "hat",
    "crown",
    "guitar",
    "drum",
    "bell",
)
"""Names of drawn objects, each by several artists."""

SOLIDS: tuple[str, ...] = ("ball", "cube", "cylinder", "cone")
"""Names of rendered objects."""

NAMES: tuple[str, ...] = tuple(dict.fromkeys((*DRAWN_NAMES, *PHOTOGRAPHED_NAMES, *SOLIDS)))
"""All names."""
