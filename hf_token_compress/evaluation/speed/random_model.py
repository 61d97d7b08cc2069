"""Models of real sizes with random weights: fine for timing, not for accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from ...checks import check_count
from ...tiny import resolve_model

_TINY = "tiny-qwen2-vl"
_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "patch_size": 14, "mlp_ratio": 4}
_PIXELS = {"shortest_edge": 4 * 28 * 28, "longest_edge": 16384 * 28 * 28}

NAMED_SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "qwen2-vl-2b": {
            "hidden_size": 1536,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        "qwen2-vl-7b": {
            "hidden_size": 3584,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
    }
)
"""Sizes of published language models that need no download (arXiv 2409.12191)."""


@dataclass(frozen=True)
class Depth:
    """How many layers a model has, of how many in the real one.

    Attributes:
        layers: Decoder layers.
        of_layers: Decoder layers of the real model.
        vision_layers: Layers of the vision tower.
        of_vision_layers: Layers of the real vision tower.
    """

    layers: int
    of_layers: int
    vision_layers: int
    of_vision_layers: int

    @property
    def missing(self) -> int:
        """Decoder layers that the model lacks."""
        return self.of_layers - self.layers

    @property
    def decoder_scale(self) -> float:
        """What a figure that grows with the decoder layers is multiplied with."""
        return self.of_layers / self.layers

    @property
    def missing_vision(self) -> int:
        """Layers that the vision tower lacks."""
        return self.of_vision_layers - self.vision_layers


def read_config(name: str) -> Any:
    """The configuration of a named size, folder or Hub id.

    Raises:
        OSError: There is no such model.
    """
    from transformers import AutoConfig

    sizes = NAMED_SIZES.get(name)
    if sizes is None:
        return AutoConfig.from_pretrained(resolve_model(name))
    # Ids of special tokens are those of the tiny model, whose tokenizer makes the prompts.
    config = AutoConfig.from_pretrained(resolve_model(_TINY)).to_dict()
    for key in ("layer_types", "head_dim"):
        config["text_config"].pop(key, None)
    config["text_config"].update(sizes, rope_parameters=_ROPE)
    config["vision_config"].update(_VISION, hidden_size=sizes["hidden_size"])
    return AutoConfig.for_model(**{**config, "tie_word_embeddings": sizes["tie_word_embeddings"]})


def read_processor(name: str) -> Any:
    """The processor of a named size, folder or Hub id.

    Raises:
        OSError: There is none.
    """
    from transformers import AutoProcessor

    if name not in NAMED_SIZES:
        return AutoProcessor.from_pretrained(resolve_model(name))
    processor = AutoProcessor.from_pretrained(resolve_model(_TINY))
    processor.image_processor.patch_size = _VISION["patch_size"]
    processor.image_processor.size = dict(_PIXELS)
    return processor


def shorten(config: Any, layers: int | None = None, vision_layers: int | None = None) -> Depth:
    """Leave only the first layers of a configuration, in place.

    Args:
        config: Configuration of the whole model.
        layers: Decoder layers to leave; None for all.
        vision_layers: Layers of the vision tower to leave; None for all.

    Raises:
        TypeError, ValueError: There are fewer layers than that.
    """
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    decoder = _shortened("layers", text, layers)
    return Depth(*decoder, *_shortened("vision_layers", vision, vision_layers))


def random_model(config: Any, *, dtype: torch.dtype, device: torch.device) -> Any:
    """A model with random weights, in evaluation mode, made in its dtype on its device."""
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng(), device:
        torch.manual_seed(0)
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval()


def _shortened(option: str, config: Any, wanted: int | None) -> tuple[int, int]:
    """Layers that are left, and those that there were."""
    name = next((name for name in ("num_hidden_layers", "depth") if hasattr(config, name)), None)
    if name is None:
        if wanted is not None:
            raise ValueError(f"{option} does not fit: this model names no number of such layers.")
        return 1, 1
    whole: int = getattr(config, name)
    if wanted is None:
        return whole, whole
    check_count(option, wanted, at_least=1)
    if wanted > whole:
        raise ValueError(f"{option} must be at most {whole} for this model, but it is {wanted}.")
    # Lists with one entry per layer, such as layer_types, are cut too.
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == whole:
            setattr(config, key, value[:wanted])
    setattr(config, name, wanted)
    return wanted, whole
