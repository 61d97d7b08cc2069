"""Prompts with about as many visual tokens as asked for, made through the model's processor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...data.chat import encode, user_turn
from ...models.registry import model_family

QUESTION = "What is shown here? Name each thing, its colour and where it is."
_FIRST_SIDE, _LARGEST_SIDE = 336, 8192
_TRIES = 8
_CLOSE_ENOUGH = 0.9


@dataclass(frozen=True)
class SizedPrompt:
    """A batch of equal prompts: square images, then a question.

    Attributes:
        inputs: Keyword arguments of the stock forward, on the model's device.
        visual_tokens: Visual tokens of each prompt.
        images: Images of each prompt.
        side: Height and width of each image in pixels.
    """

    inputs: dict[str, Any]
    visual_tokens: int
    images: int
    side: int


def sized_prompt(
    model: Any, processor: Any, visual_tokens: int, *, batch_size: int = 1
) -> SizedPrompt:
    """A batch of prompts with about `visual_tokens` each, as close as the family comes.

    One image is used where the processor makes enough tokens of one, else several.

    Args:
        model: The loaded model.
        processor: Its processor.
        visual_tokens: Visual tokens wanted of each prompt.
        batch_size: Prompts in the batch.

    Raises:
        ValueError: The processor makes no visual tokens that the model knows.
    """
    family = model_family(getattr(model, "stock_class", type(model)))

    def made(images: int, side: int, prompts: int = 1) -> SizedPrompt:
        turn = user_turn(QUESTION, [_image(side)] * images)
        inputs = dict(encode(processor, [turn] * prompts).to(model.device, model.dtype))
        tokens = int(family.placeholders(model.config, inputs, "image")[0].sum())
        if tokens == 0:
            raise ValueError(
                f"{type(processor).__name__} makes no image token that {type(model).__name__} "
                "knows: use the processor of the same checkpoint."
            )
        return SizedPrompt(inputs, tokens, images, side)

    images, side = 1, _FIRST_SIDE
    for _ in range(_TRIES):
        tried = [made(images, side)]
        for next_side in _sides(visual_tokens, tried):
            tried.append(made(images, next_side))
        best = min(tried, key=lambda prompt: abs(prompt.visual_tokens - visual_tokens))
        side = best.side
        if best.visual_tokens >= _CLOSE_ENOUGH * visual_tokens:
            break
        images = math.ceil(images * visual_tokens / best.visual_tokens)
    return best if batch_size == 1 else made(best.images, best.side, batch_size)


def _sides(wanted: int, tried: list[SizedPrompt]) -> Iterator[int]:
    """Sides to try next, until the number of tokens no longer follows the side."""
    while len(tried) < _TRIES:
        last = tried[-1]
        # Tokens grow with the area.
        side = round(last.side * math.sqrt(wanted / last.visual_tokens))
        side = min(max(side, 1), _LARGEST_SIDE)
        same = [own.visual_tokens for own in tried[-2:]].count(last.visual_tokens) > 1
        if same or side in {own.side for own in tried}:
            return
        yield side


def _image(side: int) -> Image.Image:
    return Image.effect_noise((side, side), 64).convert("RGB")
