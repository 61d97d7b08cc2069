"""Rewrite the inputs of a stock forward for the tokens that stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import PositionIdPolicy, TokenCompressionConfig
from ..grid_positions import grid_position_ids
from ..models.family import ModelFamily
from ..models.visuals import CompressedVisionOutput, EncodedVisuals
from ..prompt import Modality
from ..rewrite import PaddingSide, compact_position_ids, gather_positions, kept_positions
from .inputs import TOKEN_TYPES, PromptLayout
from .labels import check_unlabelled_visuals, short_labels

Padding = PaddingSide | Literal["tail"]
"""Where samples that became shorter are padded. With "tail", columns after the last visual token
stay as the caller has them, counted from the end, and the padding stands on the left."""


@dataclass(frozen=True)
class CompressedInputs:
    """A rewritten prompt, and how it relates to the caller's.

    Attributes:
        inputs: Keyword arguments for the stock forward or generate.
        keep: bool [B, S], tokens of the caller's prompt that were kept.
        index: int64 [B, K], place of each token in the caller's prompt, -1 for padding; None if
            no token was dropped.
    """

    inputs: dict[str, Any]
    keep: Tensor
    index: Tensor | None = None


def rewrite_prompt(
    model: Any,
    family: ModelFamily,
    config: TokenCompressionConfig,
    inputs: Mapping[str, Any],
    layout: PromptLayout,
    keep: Tensor,
    padding: Padding,
    *,
    spare_position: bool = False,
) -> CompressedInputs:
    """Inputs of the stock forward for the tokens that stay (`keep`, bool [B, S], never padding).

    Of the setting only `position_ids` is read. `spare_position` is explained in `compress_inputs`.

    Raises:
        TypeError, ValueError: An input with one entry per token does not fit `input_ids`.
    """
    # 1. The kept features replace the pixels.
    rewritten = _with_outputs(model, family, inputs, _kept_features(family, layout, keep))
    attention_mask, position_ids = layout.attention_mask, layout.position_ids
    index = None
    if (attention_mask & ~keep).any():
        check_unlabelled_visuals(inputs.get("labels"), layout)
        # 2. Find the tokens that stay; -1 marks padding.
        if padding == "tail":
            index = _with_tail(keep, layout, inputs.get("logits_to_keep"))  # [B, K]
        else:
            index = kept_positions(keep, padding)  # [B, K]
        may_have_gaps = family.text_order_axis(position_ids) is None
        if spare_position and may_have_gaps and bool((index >= 0).all()):
            index = torch.nn.functional.pad(index, (1, 0), value=-1)  # [B, K + 1]
        # 3. Inputs with one entry per token lose the entries of dropped tokens.
        attention_mask = index >= 0  # [B, K]
        rewritten["attention_mask"] = attention_mask.long()
        rewritten["input_ids"] = gather_positions(layout.input_ids, index, family.padding_id(model))
        for name in TOKEN_TYPES:
            if rewritten.get(name) is not None:
                rewritten[name] = gather_positions(rewritten[name], index, 0)
        rewritten.update(short_labels(inputs, index))
        # 4. Kept tokens keep their position ids, move up, or are renumbered.
        if config.position_ids == "grid":
            position_ids = moved_up(position_ids, layout, keep)  # [A, B, S] or [B, S]
        position_ids = gather_positions(position_ids, index, 0)  # [A, B, K] or [B, K]
        if config.position_ids == "compact" or family.renumbers_tokens:
            shortened = (layout.attention_mask & ~keep).any(dim=1)  # [B]
            position_ids = compact_position_ids(position_ids, shortened, attention_mask)
        axis = family.text_order_axis(position_ids)
        if axis is not None:
            # Transformers would read gaps in text order as borders between packed sequences.
            text_order = (attention_mask.long().cumsum(-1) - 1).masked_fill(~attention_mask, 0)
            position_ids[axis] = text_order
    rewritten["position_ids"] = position_ids
    return CompressedInputs(rewritten, keep, index)


def moved_up(position_ids: Tensor, layout: PromptLayout, keep: Tensor) -> Tensor:
    """Position ids of the whole prompts, [A, B, S] or [B, S], by the policy "grid"."""
    return grid_position_ids(position_ids, keep, layout.visual_mask(), layout.run_starts())


def check_policy(model: Any, family: ModelFamily, policy: PositionIdPolicy) -> None:
    """Raise where the positions of a family cannot follow the policy."""
    if policy == "grid" and (family.renumbers_tokens or family.numbers_visuals):
        what = "its tokens itself" if family.renumbers_tokens else "the images of a prompt"
        raise ValueError(
            f"position_ids='grid' does not fit {type(model).__name__}, which numbers {what}: use "
            "'original' or 'compact'."
        )


def with_features(
    model: Any, family: ModelFamily, inputs: Mapping[str, Any], layout: PromptLayout
) -> dict[str, Any]:
    """The inputs of the whole prompts with features in place of pixels."""
    outputs = {
        modality: family.vision_output(visuals, modality)
        for modality, visuals in layout.encoded.items()
    }
    return {
        **_with_outputs(model, family, inputs, outputs),
        "position_ids": layout.position_ids,
    }


def with_whole_features(
    family: ModelFamily, inputs: Mapping[str, Any], encoded: Mapping[Modality, EncodedVisuals]
) -> dict[str, Any]:
    """The inputs of whole prompts with features in place of pixels, as if the caller passed them.

    Unlike those of `with_features`, they can be read and compressed as if they had pixels.
    """
    kept = {name: own for name, own in inputs.items() if name not in family.replaced_inputs()}
    outputs = dict(inputs.get("mm_encoder_outputs") or {})
    for modality, visuals in encoded.items():
        outputs[modality] = family.vision_output(visuals, modality).whole()
    return {**kept, "mm_encoder_outputs": outputs}


def _with_outputs(
    model: Any,
    family: ModelFamily,
    inputs: Mapping[str, Any],
    outputs: Mapping[Modality, CompressedVisionOutput],
) -> dict[str, Any]:
    """The inputs with outputs of the vision part in place of what it consumes."""
    consumed = family.consumed_inputs(model)
    rewritten = {name: value for name, value in inputs.items() if name not in consumed}
    rewritten["mm_encoder_outputs"] = {**(inputs.get("mm_encoder_outputs") or {}), **outputs}
    return rewritten


def _with_tail(keep: Tensor, layout: PromptLayout, logits_to_keep: int | None) -> Tensor:
    """Positions of the kept tokens, and all columns after the last visual token, int64 [B, K].

    Columns that every sample has after its visual tokens stay one for one, and so do the last
    `logits_to_keep` where a sample has as many. -1 marks padding.
    """
    length = keep.shape[1]
    columns = torch.arange(length, device=keep.device)
    last = torch.where(layout.visual_mask(), columns, -1).amax(dim=1)  # [B]
    shared = max(length - 1 - int(last.max()), logits_to_keep or 0)
    tail = (columns > last[:, None]) & (columns >= length - shared)  # [B, S]
    index = kept_positions(keep | tail, "left")  # [B, K]
    return index.masked_fill(~gather_positions(keep, index, False), -1)


def next_position(position_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Position ids after the last token of each sample, int64 [A, B, 1] or [B, 1]."""
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = torch.where(attention_mask, positions, 0).amax(dim=1, keepdim=True)  # [B, 1]
    return position_ids.gather(-1, last.expand(*position_ids.shape[:-1], 1)) + 1


def _kept_features(
    family: ModelFamily, layout: PromptLayout, keep: Tensor
) -> dict[Modality, CompressedVisionOutput]:
    outputs = {}
    for modality, visuals in layout.encoded.items():
        masks = [
            keep[sample, span.positions]  # [N]
            for sample, spans in enumerate(layout.spans[modality])
            for span in spans
        ]
        outputs[modality] = family.vision_output(visuals.cut(masks), modality)
    return outputs
