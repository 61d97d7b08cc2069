"""What a model family has to tell: the names of its parts and the layout of its prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..prompt import Modality, VisualLayout
from ..scoring_layer import ScoringLayer


@dataclass
class CompressedVisionOutput(BaseModelOutputWithPooling):
    """Vision features whose prompt is compressed already, so that it is not done twice."""


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
    """One model family. It holds no state and knows no scorer.

    Attributes:
        model_classes: The Transformers classes that can be compressed.
        pixel_inputs: For each modality, the forward keyword that carries its pixels.
        consumed_inputs: Forward keywords that the rewritten inputs no longer need.
    """

    model_classes: ClassVar[tuple[type, ...]]
    pixel_inputs: ClassVar[Mapping[Modality, str]]
    consumed_inputs: ClassVar[tuple[str, ...]]

    @abstractmethod
    def placeholder_ids(self, model: Any, modality: Modality) -> set[int]:
        """Token ids of which each stands for one visual token."""

    @abstractmethod
    def encode(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        """Run the vision part once, or read the features in `inputs["mm_encoder_outputs"]`.

        Raises:
            ValueError: Something that the family needs is missing from `inputs`.
        """

    @abstractmethod
    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        """Position ids of the whole prompt, int64 [A, B, S] or [B, S].

        Where there are A > 1 axes and one of them counts plain text order, it comes first.
        """

    def vision_output(self, features: list[Tensor], modality: Modality) -> CompressedVisionOutput:
        """What the stock forward takes the kept features of all images or videos from.

        Args:
            features: float [K, D] of each image or video.
            modality: "image" or "video".
        """
        pooler_output: Any = features
        return CompressedVisionOutput(pooler_output=pooler_output)

    def generation_position_ids(self, attention_mask: Tensor) -> Tensor | None:
        """What the stock `generate` fills in where the caller gives no position ids.

        Args:
            attention_mask: bool or 0/1 [B, S].

        Returns:
            int64 [A, B, S] or [B, S]; None where it is what `position_ids` gives.
        """
        return None

    def embed(self, model: Any, input_ids: Tensor) -> Tensor:
        """Word embeddings [B, S, D]."""
        embeddings: Tensor = model.get_input_embeddings()(input_ids)
        return embeddings

    @abstractmethod
    def scoring_layer(self, model: Any, depth: int = 0) -> ScoringLayer:
        """Query and key path of decoder layer `depth`."""

    def decoder(self, model: Any) -> Any:
        """The language model without its head: it takes `inputs_embeds` and has `layers`.

        Raises:
            ValueError: The family can only be scored at layer 0.
        """
        raise ValueError(
            f"{type(model).__name__} can only be scored at layer 0: leave scoring_depth at 0."
        )

    @abstractmethod
    def structure_ids(self, model: Any) -> set[int]:
        """Ids that only mark structure around visuals and never belong to the instruction."""

    def turn_end_ids(self, model: Any) -> set[int]:
        """Ids that close a turn of a conversation: the end-of-sequence tokens."""
        ids: set[int] = set()
        generation_config = getattr(model, "generation_config", None)
        for config in (generation_config, model.config, model.config.get_text_config()):
            eos = getattr(config, "eos_token_id", None)
            ids.update([eos] if isinstance(eos, int) else eos or [])
        return ids

    def padding_id(self, model: Any) -> int:
        """Id to pad with; it must not be a placeholder."""
        generation_config = getattr(model, "generation_config", None)
        for config in (generation_config, model.config, model.config.get_text_config()):
            pad = getattr(config, "pad_token_id", None)
            if isinstance(pad, int):
                return pad
        ends = self.turn_end_ids(model)
        return min(ends) if ends else 0

    def text_order_axis(self, position_ids: Tensor) -> int | None:
        """Axis of `position_ids` that counts plain text order and must stay free of gaps."""
        return None


def is_token(input_ids: Tensor, token_ids: set[int]) -> Tensor:
    """Bool [B, S], True where the id is one of `token_ids`."""
    wanted = torch.tensor(sorted(token_ids), dtype=input_ids.dtype, device=input_ids.device)
    return torch.isin(input_ids, wanted)
