"""Rewrite the inputs of a stock forward for the tokens that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..config import PositionIdPolicy, TokenCompressionConfig
from ..device_copy import to_device
from ..grid_positions import grid_position_ids
from ..models.family import ModelFamily
from ..models.visuals import CompressedVisionOutput, EncodedVisuals
from ..padding import past_end
from ..prompt import Modality
from ..rewrite import PaddingSide, compact_position_ids, ordered_positions
from ..selection import KeptTokens
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
        padded: Whether the rewritten prompt has padding.
        index: int64 [B, K], place of each token in the caller's prompt, -1 for padding; None if
            no token was dropped and no padding added.
    """

    inputs: dict[str, Any]
    keep: Tensor
    padded: bool
    index: Tensor | None = None


def rewrite_prompt(
    model: Any,
    family: ModelFamily,
    config: TokenCompressionConfig,
    inputs: Mapping[str, Any],
    layout: PromptLayout,
    kept: KeptTokens,
    padding: Padding,
    *,
    host: Mapping[str, Any] | None = None,
    spare_position: bool = False,
) -> CompressedInputs:
    """Inputs of the stock forward for the tokens that stay.

    Of the setting only `position_ids` and `pad_to_multiple_of` are read. `spare_position` is
    explained in `compress_inputs`. `host` is what `on_host` makes of the inputs, if it was called.

    Raises:
        TypeError, ValueError: An input with one entry per token does not fit `input_ids`.
    """
    whole = layout.on_host.attention_mask
    counts = whole.sum(dim=1).tolist()
    # 1. The kept features replace the pixels.
    rewritten = _with_outputs(model, family, inputs, _kept_features(family, layout, kept))
    position_ids = layout.position_ids
    multiple = config.pad_to_multiple_of or 1
    dropped = list(kept.counts) != counts
    if not dropped and whole.shape[1] % multiple == 0:
        rewritten["position_ids"] = position_ids
        return CompressedInputs(rewritten, kept.mask, padded=not bool(whole.all()))
    if dropped:
        labels = inputs.get("labels") if host is None else host.get("labels")
        check_unlabelled_visuals(labels, layout)
    # 2. Find the tokens that stay. What is padding is known from their number.
    if padding == "tail":
        keep, exists = _with_tail(kept, layout, inputs.get("logits_to_keep"))  # [B, S], [B, K]
    else:
        keep, exists = kept.mask, _filled(kept.counts, padding)
    may_have_gaps = family.text_order_axis(position_ids) is None
    spare = spare_position and may_have_gaps and bool(exists.all())
    side: PaddingSide = "right" if padding == "right" else "left"
    source = ordered_positions(keep, side, exists.shape[1])  # [B, K]
    if more := -(exists.shape[1] + spare) % multiple + spare:
        where = (0, more) if side == "right" else (more, 0)
        source, exists = pad(source, where), pad(exists, where)  # [B, K + more]
    padded = not bool(exists.all())
    text_order = (exists.long().cumsum(-1) - 1).masked_fill(~exists, 0)  # [B, K]
    shortened = torch.tensor(kept.counts) < torch.tensor(counts)  # [B]
    attention_mask, exists, is_padding, text_order, shortened = to_device(
        [exists.long(), exists, ~exists, text_order, shortened], source.device
    )
    index = source.masked_fill(is_padding, -1) if padded else source

    def short(tensor: Tensor, fill: int) -> Tensor:
        """The entries of the tokens that stay, [..., B, K]."""
        gathered = tensor.gather(-1, source.expand(*tensor.shape[:-1], -1))
        return gathered.masked_fill_(is_padding, fill) if padded else gathered

    # 3. Inputs with one entry per token lose the entries of dropped tokens.
    rewritten["attention_mask"] = attention_mask
    rewritten["input_ids"] = short(layout.input_ids, family.padding_id(model))
    for name in TOKEN_TYPES:
        if rewritten.get(name) is not None:
            rewritten[name] = short(rewritten[name], 0)
    rewritten.update(short_labels(inputs, index))
    # 4. Kept tokens keep their position ids, move up, or are renumbered.
    if config.position_ids == "grid":
        position_ids = moved_up(position_ids, layout, kept.mask)  # [A, B, S] or [B, S]
    position_ids = short(position_ids, 0)  # [A, B, K] or [B, K]
    if config.position_ids == "compact" or family.renumbers_tokens:
        position_ids = compact_position_ids(position_ids, shortened, exists)
    axis = family.text_order_axis(position_ids)
    if axis is not None:
        # Transformers would read gaps in text order as borders between packed sequences.
        position_ids[axis] = text_order
    rewritten["position_ids"] = position_ids
    return CompressedInputs(rewritten, kept.mask, padded, index)


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


def _filled(counts: Sequence[int], padding_side: PaddingSide) -> Tensor:
    """Which columns hold tokens if samples of these lengths are padded, bool [B, K] on the CPU."""
    filled = ~past_end(counts)
    return filled if padding_side == "right" else filled.flip(1)


def _with_tail(
    kept: KeptTokens, layout: PromptLayout, logits_to_keep: int | None
) -> tuple[Tensor, Tensor]:
    """The kept tokens with all columns after the last visual token, bool [B, S].

    Columns that every sample has after its visual tokens stay one for one, and so do the last
    `logits_to_keep` where a sample has as many.

    Returns:
        These, and which of them hold tokens once shorter samples are padded on the left, bool
        [B, K] on the CPU.
    """
    mask = layout.on_host.attention_mask
    length = mask.shape[1]
    columns = torch.arange(length)
    last = torch.where(layout.on_host.visual_mask, columns, -1).amax(dim=1)  # [B]
    shared = max(length - 1 - int(last.max()), logits_to_keep or 0)
    shared = min(shared, length - 1 - int(last.min()))  # what the longest tail has
    tail = (columns > last[:, None]) & (columns >= length - shared)  # [B, S]
    counts = torch.tensor(kept.counts) + (tail & ~mask).sum(dim=1)  # [B]
    exists = _filled(counts.tolist(), "left")  # [B, K]
    # The tail of a sample are its last columns.
    width = exists.shape[1]
    exists[:, width - shared :] &= (mask | ~tail)[:, length - shared :]
    (tail,) = to_device([tail], kept.mask.device)
    return kept.mask | tail, exists


def next_position(position_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Position ids after the last token of each sample, int64 [A, B, 1] or [B, 1]."""
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = torch.where(attention_mask, positions, 0).amax(dim=1, keepdim=True)  # [B, 1]
    return position_ids.gather(-1, last.expand(*position_ids.shape[:-1], 1)) + 1


def _kept_features(
    family: ModelFamily, layout: PromptLayout, kept: KeptTokens
) -> dict[Modality, CompressedVisionOutput]:
    counts = _kept_of_visuals(layout, kept)
    outputs = {}
    for modality, visuals in layout.encoded.items():
        whole = [len(span.positions) for spans in layout.spans[modality] for span in spans]
        if counts[modality] != whole:
            keep = layout.of_visual_tokens(kept.mask, modality)  # [N of all]
            index = ordered_positions(keep[None], "left", sum(counts[modality]))[0]  # [K of all]
            visuals = visuals.choose(index, counts[modality])
        outputs[modality] = family.vision_output(visuals, modality)
    return outputs


def _kept_of_visuals(layout: PromptLayout, kept: KeptTokens) -> dict[Modality, list[int]]:
    """How many tokens of each image or video stay.

    If a prompt that loses tokens has several of them, the host waits to count these.
    """
    dropped = layout.on_host.attention_mask.sum(dim=1) - torch.tensor(kept.counts)  # [B]
    on_host = kept.on_host
    if on_host is None and any(
        lost and len(own) > 1 for lost, own in zip(dropped.tolist(), layout.visuals, strict=True)
    ):
        on_host = kept.mask.cpu()
    counts: dict[Modality, list[int]] = {}
    for modality, by_sample in layout.spans.items():
        counts[modality] = [
            len(span.positions) - (int(dropped[sample]) if len(span.positions) else 0)
            if on_host is None or dropped[sample] == 0
            else int(on_host[sample, span.positions].sum())
            for sample, spans in enumerate(by_sample)
            for span in spans
        ]
    return counts
