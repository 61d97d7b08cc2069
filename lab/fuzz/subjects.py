"""The models under test, and inputs for the prompts that are drawn for them."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from torch import Tensor

from hf_token_compress import compress, load_tiny
from hf_token_compress.data.chat import encode
from hf_token_compress.data.scenes import make_clip, make_scene
from hf_token_compress.tiny import available_tiny_models

from ..cases.common import KEEP_ALL

# The random models are those of the tests, which are not a package.
sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))
import conversation
import moved_positions
import pairs
import tiny_models
from families import _grids

TRAINED = available_tiny_models()


def _can_run(name: str) -> bool:
    family = tiny_models.tiny_family(name)
    try:
        family.config()
    except pytest.skip.Exception:  # for a package that is missing
        return False
    return Version(family.since) <= Version(transformers.__version__)


# Their stock models give a prompt other logits in a batch than alone, and do not continue a cache.
_NEVER_ALONE = ("ernie4_5_vl_moe", "hunyuan_vl")
RANDOM = tuple(
    name for name in tiny_models.every_family() if _can_run(name) and name not in _NEVER_ALONE
)
RENUMBERED = ("exaone4_5", "hyperclovax_vision_v2")
"""Random families whose tokens are always numbered 0, 1, 2, …"""
IMAGES_ONLY = ("qwen2-vl",)
"""Trained models that take no videos."""

carried, sample_states = pairs.carried, pairs.sample_states
moved_up = moved_positions.moved_up
Conversation, ModelPair, ENDLESS = conversation.Conversation, pairs.ModelPair, conversation.ENDLESS

_ANY_SIZE = ("mistral3",)
_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


class Subject(NamedTuple):
    """One model in three copies with the same weights.

    Attributes:
        stock: As Transformers has it.
        compressed: Compressed; every trial gives it a setting.
        keeping_all: Compressed at ratio 1.0.
        processor: Of a trained model; None for random ones.
        family: What the tests know of its family.
        tolerance: Absolute and relative, for sums that are made in another order.
        special_ids: Tokens that it may not generate.
    """

    stock: Any
    compressed: Any
    keeping_all: Any
    processor: Any
    family: Any
    tolerance: float
    special_ids: list[int]

    def inputs(self, prompts: Sequence[Any]) -> dict[str, Tensor]:
        """Model inputs of a batch, padded on the left."""
        if self.processor is not None:
            return dict(encode(self.processor, [_conversation(prompt) for prompt in prompts]))
        name = self.stock.config.model_type
        return tiny_models.make_inputs(prompts, family=name, dtype=self.stock.dtype)


@functools.cache
def subject(name: str, attention: str) -> Subject:
    """Load a trained tiny model, or make a random one of a family, with this attention."""
    processor = None
    if name in TRAINED:
        stock, processor = load_tiny(name, attn_implementation=attention)
        tolerance = 1e-3  # logits of tens in float32
    else:
        # In float64, so that ties between tokens do not turn on how sums are rounded.
        stock = tiny_models.tiny_model(attention, dtype=torch.float64, family=name)
        stock = stock if _runs(stock) else stock.float()
        tolerance = 1e-3 if stock.dtype == torch.float32 else 1e-4  # norms are in float32 even so
    config = stock.config
    placeholders = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
    special = [token for token in placeholders if token is not None]
    # Ovis2 embeds these otherwise where the prompt comes with an image.
    special += getattr(config, "visual_indicator_token_ids", None) or []
    return Subject(
        stock,
        compress(copy.deepcopy(stock), KEEP_ALL),
        compress(copy.deepcopy(stock), KEEP_ALL),
        processor,
        tiny_models.family_of(stock),
        tolerance,
        sorted({*special, *(stock.generation_config.suppress_tokens or ())}),
    )


def _runs(model: Any) -> bool:
    """Whether the stock model answers a padded prompt in its dtype.

    In float64, mixtures of experts fail, and eager attention gives NaN: the mask's minimum does not
    fit its float32 softmax.
    """
    ids = torch.ones(1, 3, dtype=torch.long)
    mask = torch.tensor([[0, 1, 1]])
    try:
        with torch.no_grad():
            return bool(model(input_ids=ids, attention_mask=mask).logits.isfinite().all())
    except RuntimeError:
        return False


class Kinds(NamedTuple):
    """What the prompts of a random family may hold.

    Attributes:
        videos: Whether there may be videos.
        mixed: Whether there may be images and videos in one batch.
        any_size: Whether an image may have any number of rows and columns.
        alone, together: Sizes of images, if not any: of the only one of its prompt, and of several.
    """

    videos: bool
    mixed: bool
    any_size: bool
    alone: tuple[tuple[int, ...], ...]
    together: tuple[tuple[int, ...], ...]


@functools.cache
def kinds(name: str) -> Kinds:
    """What the prompts of a random family may hold, from those of its tests."""
    family = tiny_models.tiny_family(name)
    alone, together = set(), set()
    videos = False
    for prompt in (prompt for batch in family.prompts.values() for prompt in batch):
        sizes = [segment for segment in prompt if isinstance(segment, tuple)]
        images = [size for size in sizes if len(size) == 2]
        videos |= len(images) < len(sizes)
        (alone if len(images) == 1 else together).update(images)
    return Kinds(
        videos,
        mixed="image_and_video" in family.prompts,
        any_size=isinstance(family, _grids.Grids) or name in _ANY_SIZE,
        alone=tuple(sorted(alone)),
        together=tuple(sorted(together)),
    )


def right_padded(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same batch with its padding on the other side."""
    absent = (inputs["attention_mask"] == 0).sum(1).tolist()
    turned = dict(inputs)
    for name in _PER_TOKEN:
        if name in inputs:
            rows = zip(inputs[name], absent, strict=True)
            turned[name] = torch.stack([row.roll(-count) for row, count in rows])
    return turned


def extended(inputs: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    """The prompts, padded on the left, with more text, int64 [B, T], at their ends."""
    more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    result = dict(inputs)
    for name in _PER_TOKEN:
        if name in inputs:
            added = more.get(name, torch.zeros_like(ids))
            result[name] = torch.cat([inputs[name], added.to(inputs[name])], dim=1)
    if "position_ids" in inputs:
        last = inputs["position_ids"][..., -1:]  # [A, B, 1] or [B, 1]
        following = last + 1 + torch.arange(ids.shape[1])
        result["position_ids"] = torch.cat([inputs["position_ids"], following], dim=-1)
    return result


def _conversation(prompt: Sequence[Any]) -> list[dict[str, Any]]:
    content = []
    for part in prompt:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        elif len(part) == 3:
            content.append({"type": "image", "image": _image(*part)})
        else:
            content.append({"type": "video", "video": _frames(*part)})
    return [{"role": "user", "content": content}]


@functools.lru_cache(64)
def _image(seed: int, rows: int, columns: int) -> Image.Image:
    return make_scene(seed, rows, columns).image


@functools.lru_cache(64)
def _frames(seed: int, frames: int, rows: int, columns: int) -> list[Image.Image]:
    return make_clip(seed, frames, rows, columns).images
