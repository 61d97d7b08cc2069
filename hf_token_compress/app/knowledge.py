"""What the page says about the model, in Markdown."""

from __future__ import annotations

import torch

from ..asking import Checkpoint
from ..compression.report import count_text
from ..data.scenes import COLOURS, load_drawings
from ..tiny import resolve_model

_IMAGES = (
    "**It knows** images like the examples: a grid of drawings of {count} objects ({objects}, …) "
    "on tiles in {colours} colours, each with a letter on a badge. Ask what is at a row and "
    "column; where an object is; what is left of, right of, above or below it; its colour; "
    "its letter; what is next to a letter; or whether an object is there at all."
)
_CLIPS = (
    "About a video of several such images, you can also ask what is at a row and column at the "
    "start, at the end, or while the tiles have a certain colour."
)
_NOTHING_ELSE = (
    "It knows **nothing else**: photographs, drawings of your own, and questions in other words "
    "get only guesses."
)


def is_embedded(name: str) -> bool:
    """Whether a model comes with the library."""
    return resolve_model(name) != name


def what_it_knows(checkpoint: Checkpoint, *, clips: bool) -> str:
    """What kinds of questions about which images the model can answer."""
    millions = sum(parameter.numel() for parameter in checkpoint.model.parameters()) / 1e6
    name = f"`{checkpoint.name}`, {millions:,.1f} million parameters."
    if not is_embedded(checkpoint.name):
        return f"The model is {name} The examples are composed images; try your own."
    objects = load_drawings().names
    images = _IMAGES.format(
        count=len(objects), objects=", ".join(objects[:3]), colours=len(COLOURS)
    )
    parts = [f"The model that comes with the library: {name}", images]
    return " ".join([*parts, *([_CLIPS] if clips else []), _NOTHING_ELSE])


def what_is_measured(checkpoint: Checkpoint) -> str:
    """On which machine times are measured, and what they do not say."""
    model = checkpoint.model
    device, dtype = model.device.type, str(model.dtype).removeprefix("torch.")
    if device == "cpu":
        device += f", {count_text(torch.get_num_threads(), 'thread')}"
    return (
        f"Times are of one whole call on this machine ({device}, {dtype}) after a warm-up: vision, "
        "scoring and generation. With few tokens, the scorer may cost more than it saves; "
        "`hf-token-compress benchmark` finds the number of tokens from which it pays."
    )
