"""A model family: what its parts are called, and where its visual tokens lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..prompt import Modality, VisualLayout


@dataclass
class CompressedVisionOutput(BaseModelOutputWithPooling):
    """Vision features of an already compressed prompt: they are not compressed again."""


@dataclass(frozen=True)
class EncodedVisuals:
    """Features and layouts of all images, or all videos, of a batch.

    Attributes:
        features: One float [N, D] per image or video, in the order of the prompts.
        layouts: Where on the image or video each of those N tokens lies.
    """

    features: list[Tensor]
    layouts: list[VisualLayout]


class ModelFamily(ABC):
    """One model family; it holds no state and knows no scorer.

    A new family needs `model_classes` and `encode`. The other methods describe a stock decoder
    with one position per token; override what differs.

    Attributes:
        model_classes: The Transformers classes that can be compressed.
        pixel_inputs: For each modality, the forward keyword that carries its pixels.
        consumed_inputs: Other forward keywords that the rewritten inputs no longer need.
    """

    model_classes: ClassVar[tuple[type, ...]]
    pixel_inputs: ClassVar[Mapping[Modality, str]] = MappingProxyType(
        {"image": "pixel_values", "video": "pixel_values_videos"}
    )
    consumed_inputs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def encode(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        """Run the vision part once, or read the features in `inputs["mm_encoder_outputs"]`.

        Raises:
            ValueError: `inputs` lacks something that the family needs.
        """

    def vision_output(self, features: list[Tensor], modality: Modality) -> CompressedVisionOutput:
        """Wrap the kept features for the stock forward.

        Args:
            features: float [K, D] of each image or video.
            modality: "image" or "video".
        """
        pooler_output: Any = features
        return CompressedVisionOutput(pooler_output=pooler_output)

    def placeholder_ids(self, model: Any, modality: Modality) -> set[int]:
        """Ids of the tokens that each stand for one visual token."""
        return {getattr(model.config, f"{modality}_token_id")}

    def structure_ids(self, model: Any) -> set[int]:
        """Ids that mark structure around visual tokens and never belong to the instruction."""
        return set()

    def turn_end_ids(self, model: Any) -> set[int]:
        """Ids that close a turn of a conversation: the end-of-sequence tokens."""
        ids: set[int] = set()
        for config in _configs(model):
            eos = getattr(config, "eos_token_id", None)
            ids.update([eos] if isinstance(eos, int) else eos or [])
        return ids

    def padding_id(self, model: Any) -> int:
        """Id to pad with; it must not be a placeholder."""
        for config in _configs(model):
            pad = getattr(config, "pad_token_id", None)
            if isinstance(pad, int):
                return pad
        return min(self.turn_end_ids(model), default=0)

    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        """Position ids of the whole prompt, as the stock forward would fill them in.

        Returns:
            int64 [A, B, S] or [B, S]. If one of A axes counts plain text order, it comes first.
        """
        given: Tensor | None = inputs.get("position_ids")
        if given is None:
            # The stock forward counts every position, padding too.
            given = torch.arange(attention_mask.shape[1], device=attention_mask.device)[None]
        shared = given.shape == (1, attention_mask.shape[1])
        return given.expand(attention_mask.shape) if shared else given  # [B, S]

    def generation_position_ids(self, attention_mask: Tensor) -> Tensor | None:
        """Position ids as the stock `generate` fills them in.

        Args:
            attention_mask: bool or 0/1 [B, S].

        Returns:
            int64 [A, B, S] or [B, S]; None if they are those of `position_ids`.
        """
        tokens = attention_mask.long()
        return (tokens.cumsum(-1) - 1).masked_fill(tokens == 0, 0)

    def text_order_axis(self, position_ids: Tensor) -> int | None:
        """Axis of `position_ids` that counts plain text order and must have no gaps."""
        return None


def is_token(input_ids: Tensor, token_ids: set[int]) -> Tensor:
    """Bool [B, S], True where the id is one of `token_ids`."""
    wanted = torch.tensor(sorted(token_ids), dtype=input_ids.dtype, device=input_ids.device)
    return torch.isin(input_ids, wanted)


def _configs(model: Any) -> tuple[Any, ...]:
    """Where a model may name its special tokens, in order of precedence."""
    generation_config = getattr(model, "generation_config", None)
    return generation_config, model.config, model.config.get_text_config()
