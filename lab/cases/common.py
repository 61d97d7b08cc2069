"""What the cases share: the trained tiny models, prompts for them, and comparisons."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from hf_token_compress import TokenCompressionConfig, compress, load_tiny  # noqa: E402
from hf_token_compress.data.scenes import make_scene  # noqa: E402

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

FAMILIES = ("qwen2-vl", "llava-onevision", "vila")
QUARTER = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0)
KEEP_ALL = TokenCompressionConfig(retention_ratio=1.0, min_visual_tokens=0)
WHAT = "what is at row 1 column 3 ?"
WHERE = "where is the cat , and which colour is behind it ?"


class Pair(NamedTuple):
    """A stock model, a compressed copy of it, and their processor."""

    stock: Any
    compressed: Any
    processor: Any


def make_pair(family: str, config: TokenCompressionConfig = QUARTER) -> Pair:
    """Load a trained tiny model twice, stock and compressed."""
    stock, processor = load_tiny(family)
    return Pair(stock, compress(copy.deepcopy(stock), config), processor)


def image(seed: int = 0) -> Image.Image:
    """A composed image of 4 x 6 drawings."""
    return make_scene(seed, 4, 6).image


def encode(processor: Any, *prompts: tuple[Image.Image | str, ...]) -> dict[str, Any]:
    """Model inputs of a padded batch.

    Args:
        processor: Processor of the model.
        *prompts: For each prompt its images and texts, in order; a path of an image is a text that
            begins with "/".
    """
    turns = [
        [{"role": "user", "content": [_content(part) for part in prompt]}] for prompt in prompts
    ]
    return dict(
        processor.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
    )


def _content(part: Image.Image | str) -> dict[str, Any]:
    if isinstance(part, Image.Image):
        return {"type": "image", "image": part}
    if part.startswith("/"):
        return {"type": "image", "url": part}
    return {"type": "text", "text": part}


def greedy(model: Any, inputs: dict[str, Any], count: int, **options: Any) -> Any:
    """Generate exactly `count` tokens greedily, with their logits."""
    return model.generate(
        **inputs,
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


def cache_of(output: Any) -> Any:
    """The cache of an output, under its name in this version of Transformers."""
    return output["cache"] if "cache" in output else output["past_key_values"]


def apart(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference; infinite for tensors of different shapes."""
    return (one - other).abs().max().item() if one.shape == other.shape else float("inf")


def logits_apart(one: Any, other: Any) -> float:
    """Largest difference between the logits of two generated outputs."""
    return max(apart(a, b) for a, b in zip(one.logits, other.logits, strict=True))


def extended(inputs: dict[str, Any], ids: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
    """The same prompts with more text tokens at the end.

    Args:
        inputs: Model inputs with `input_ids` [B, S].
        ids: int64 [B, T], what is appended.
        mask: int64 [B, T], 1 for tokens that are not padding; by default all ones.
    """
    more = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids) if mask is None else mask,
        "mm_token_type_ids": torch.zeros_like(ids),
    }
    return {
        name: torch.cat([value, more[name]], 1) if name in more else value
        for name, value in inputs.items()
    }


def position_ids(stock: Any, inputs: dict[str, Any]) -> Tensor:
    """Positions of the uncompressed prompt, as the stock forward counts them."""
    if hasattr(stock.model, "get_rope_index"):
        positions, _ = stock.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )
        return positions  # [3, B, S]
    return torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
