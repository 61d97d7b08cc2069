"""From the inputs of a stock forward to the inputs of a shorter prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import TokenCompressionConfig
from ..models.family import CompressedVisionOutput, ModelFamily
from ..prompt import Modality, VisualSpan
from ..rewrite import PaddingSide, compact_position_ids, gather_positions, kept_positions
from ..scorers.base import checked_scores
from ..selection import select_visual_tokens, top_p_budget, visual_token_budget
from .depth import at_depth
from .inputs import PromptLayout, encode_visuals, has_pixels_to_encode, read_layout
from .reading import instruction_tokens
from .report import CompressionReport, SampleReport
from .state import TokenCompression
from .stopwatch import Stopwatch

# Inputs of the stock forward with one entry per token, and what stands at padding.
_TOKEN_INPUTS = {"mm_token_type_ids": 0, "token_type_ids": 0, "labels": -100}


@dataclass(frozen=True)
class CompressedInputs:
    """A rewritten prompt and what is needed to find the way back.

    Attributes:
        inputs: Keyword arguments for the stock forward or generate.
        keep: bool [B, S], columns of the caller's sequence that were kept.
        next_position: int64 [A, B, 1] or [B, 1], position ids of the token after the prompt.
    """

    inputs: dict[str, Any]
    keep: Tensor
    next_position: Tensor


def compress_inputs(
    model: Any,
    family: ModelFamily,
    compression: TokenCompression,
    inputs: Mapping[str, Any],
    *,
    padding_side: PaddingSide,
    spare_position: bool = False,
    retention_ratio: float | None = None,
    instruction_mask: Tensor | None = None,
) -> CompressedInputs:
    """Encode, score, select and rewrite one batch; leaves a report in `compression.last`.

    Args:
        model: The loaded model.
        family: Its family.
        compression: Its setting.
        inputs: Keyword arguments of the stock forward, with images or videos.
        padding_side: Side on which rows that became shorter are padded.
        spare_position: Pad by one column where no row is padded and position ids may have gaps:
            `generate` without a cache drops a mask that hides nothing, and Transformers then
            takes the gaps for the borders of packed sequences.
        retention_ratio: Overrides the setting for this call, in (0, 1].
        instruction_mask: bool or 0/1 [B, S], overrides which rows ask the question.

    Raises:
        TypeError, ValueError: An input is missing or does not fit the others, a prompt has no row
            that asks where the scorer needs one, or the scorer returned something else than one
            finite score per position.
    """
    config = compression.config
    if retention_ratio is not None:
        config = replace(config, retention_ratio=retention_ratio)
    if isinstance(inputs.get("logits_to_keep"), Tensor):
        raise ValueError(
            "logits_to_keep must be a number with token compression: indices would point into the "
            "uncompressed prompt."
        )
    vision, scoring, rewriting = (Stopwatch(model.device) for _ in range(3))

    with vision.running() if has_pixels_to_encode(family, inputs) else nullcontext():
        encoded = encode_visuals(model, family, inputs)
    with rewriting.running():
        layout = read_layout(model, family, inputs, encoded)
        budgets = [_budget(row, config) for row in layout.visuals]
    scores = None
    if config.top_p is not None or any(
        budget < _visual_tokens(row) for budget, row in zip(budgets, layout.visuals, strict=True)
    ):
        with scoring.running(), torch.no_grad():
            scores = _score(model, family, compression, config, layout, inputs, instruction_mask)
    with rewriting.running():
        keep = _keep_mask(layout, budgets, scores, config)
        compressed = rewrite_prompt(
            model, family, config, inputs, layout, keep, padding_side, spare_position=spare_position
        )
    compression.last = CompressionReport(
        samples=_sample_reports(layout, keep, scores),
        vision_ms=vision.milliseconds,
        scoring_ms=scoring.milliseconds,
        rewriting_ms=rewriting.milliseconds,
    )
    return compressed


def _check_shape(name: str, tensor: object, input_ids: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} must be a tensor of the shape of input_ids, not {type(tensor).__name__}."
        )
    if tensor.shape != input_ids.shape:
        raise ValueError(
            f"{name} must have the shape of input_ids, {list(input_ids.shape)}, but has "
            f"{list(tensor.shape)}."
        )


def _visual_tokens(row: tuple[VisualSpan, ...]) -> int:
    return sum(len(span.positions) for span in row)


def _budget(row: tuple[VisualSpan, ...], config: TokenCompressionConfig) -> int:
    return visual_token_budget(
        _visual_tokens(row),
        retention_ratio=config.retention_ratio,
        min_visual_tokens=config.min_visual_tokens,
        max_visual_tokens=config.max_visual_tokens,
    )


def _score(
    model: Any,
    family: ModelFamily,
    compression: TokenCompression,
    config: TokenCompressionConfig,
    layout: PromptLayout,
    inputs: Mapping[str, Any],
    instruction_mask: Tensor | None,
) -> Tensor:
    """Scores of every column, float32 [B, S]."""
    if instruction_mask is None:
        # What is learned as the answer does not ask.
        question = layout.attention_mask
        labels = inputs.get("labels")
        if labels is not None:
            question = before_last_answer(labels, question)
        instruction_mask = instruction_tokens(model, family, layout, config.instruction, question)
    else:
        _check_shape("instruction_mask", instruction_mask, layout.input_ids)
    word_embeddings = family.embed(model, layout.input_ids)
    prompt = layout.prompt(word_embeddings, instruction_mask.to(layout.attention_mask))
    scorer = compression.scorer
    context: dict[str, Any] = {}
    if scorer.needs_model:
        # `generate` takes more arguments than the forward of the model.
        own = inspect.signature(model.forward).parameters
        whole = {name: value for name, value in inputs.items() if name in own}
        context = {"model": model, "inputs": whole}
    prompt, layer = at_depth(model, family, prompt, scorer.scoring_depth)
    with layer.in_evaluation_mode():
        scores = scorer.score(prompt, layer, **context)
    return checked_scores(scores, prompt, config.scorer_name)


def before_last_answer(labels: Tensor, attention_mask: Tensor) -> Tensor:
    """Tokens before the last run of labelled ones, bool [B, S].

    A row that is labelled from its first token on, or nowhere, has no separate question: all of it
    counts.
    """
    labelled = labels != -100
    starts = labelled & ~torch.nn.functional.pad(labelled, (1, 0))[:, :-1]
    columns = torch.arange(labels.shape[1], device=labels.device)
    last_start = torch.where(starts, columns, -1).amax(dim=1, keepdim=True)  # [B, 1]
    before = attention_mask & (columns < last_start)
    return torch.where(before.any(dim=1, keepdim=True), before, attention_mask)


def _keep_mask(
    layout: PromptLayout,
    budgets: list[int],
    scores: Tensor | None,
    config: TokenCompressionConfig,
) -> Tensor:
    """Columns that stay, bool [B, S]: all text, and the best visual tokens of each prompt."""
    keep = layout.attention_mask.clone()
    if scores is None:
        return keep
    for row, visuals in enumerate(layout.visuals):
        if not visuals or _visual_tokens(visuals) < config.min_visual_tokens:
            continue
        columns = torch.cat([span.positions for span in visuals])  # [N]
        budget = budgets[row]
        if config.top_p is not None:
            budget = min(budget, top_p_budget(scores[row, columns], config.top_p))
        kept = select_visual_tokens(
            scores[row, columns],
            [len(span.positions) for span in visuals],
            budget,
            min_tokens_per_visual=config.min_tokens_per_visual,
            frames=_video_frames(visuals),
            min_tokens_per_frame=config.min_tokens_per_frame,
        )
        # The next token is predicted from the last one, whatever it is.
        last = layout.attention_mask[row].nonzero()[-1]
        keep[row, columns] = kept | (columns == last)
    return keep


def _video_frames(visuals: tuple[VisualSpan, ...]) -> list[Tensor]:
    """Which of a prompt's visual tokens lie on each frame of its videos, int64 [n] each."""
    frames: list[Tensor] = []
    start = 0
    for span in visuals:
        if span.modality == "video":
            by_frame = zip(*(grid.index + start for grid in span.grids), strict=True)
            frames += [torch.cat([part.flatten() for part in parts]) for parts in by_frame]
        start += len(span.positions)
    return frames


def _kept_index(
    family: ModelFamily,
    layout: PromptLayout,
    keep: Tensor,
    padding_side: PaddingSide,
    spare_position: bool,
) -> Tensor | None:
    """Columns of the shorter prompt, int64 [B, K], -1 at padding; None where none is dropped."""
    if not (layout.attention_mask & ~keep).any():
        return None
    index = kept_positions(keep, padding_side)
    has_gaps = family.text_order_axis(layout.position_ids) is None
    if spare_position and has_gaps and bool((index >= 0).all()):
        index = torch.nn.functional.pad(index, (1, 0), value=-1)
    return index


def rewrite_prompt(
    model: Any,
    family: ModelFamily,
    config: TokenCompressionConfig,
    inputs: Mapping[str, Any],
    layout: PromptLayout,
    keep: Tensor,
    padding_side: PaddingSide,
    *,
    spare_position: bool = False,
) -> CompressedInputs:
    """Inputs of the stock forward for the kept columns of a prompt.

    Args:
        model: The loaded model.
        family: Its family.
        config: Its setting, of which only `position_ids` is read.
        inputs: Keyword arguments of the stock forward for the whole prompt.
        layout: What `read_layout` found in them.
        keep: bool [B, S], columns that stay; never padding.
        padding_side: Side on which rows that became shorter are padded.
        spare_position: As in `compress_inputs`.

    Raises:
        TypeError, ValueError: An input with one entry per token does not fit `input_ids`.
    """
    consumed = {*family.pixel_inputs.values(), *family.consumed_inputs}
    rewritten = {name: value for name, value in inputs.items() if name not in consumed}
    rewritten["mm_encoder_outputs"] = {
        **(inputs.get("mm_encoder_outputs") or {}),
        **_kept_features(family, layout, keep),
    }
    position_ids = layout.position_ids
    index = _kept_index(family, layout, keep, padding_side, spare_position)
    if index is not None:
        attention_mask = index >= 0
        rewritten["input_ids"] = gather_positions(layout.input_ids, index, family.padding_id(model))
        rewritten["attention_mask"] = attention_mask.long()
        for name, fill in _TOKEN_INPUTS.items():
            if rewritten.get(name) is not None:
                _check_shape(name, rewritten[name], layout.input_ids)
                rewritten[name] = gather_positions(rewritten[name], index, fill)
        position_ids = gather_positions(position_ids, index, 0)
        if config.position_ids == "compact":
            shortened = (layout.attention_mask & ~keep).any(dim=1)  # [B]
            position_ids = compact_position_ids(position_ids, shortened, attention_mask)
        axis = family.text_order_axis(position_ids)
        if axis is not None:
            # Transformers takes gaps in text order for the borders of packed sequences.
            text_order = (attention_mask.long().cumsum(-1) - 1).masked_fill(~attention_mask, 0)
            position_ids[axis] = text_order
    else:
        attention_mask = layout.attention_mask
    rewritten["position_ids"] = position_ids
    return CompressedInputs(rewritten, keep, next_position(position_ids, attention_mask))


def _kept_features(
    family: ModelFamily, layout: PromptLayout, keep: Tensor
) -> dict[Modality, CompressedVisionOutput]:
    outputs = {}
    for modality, visuals in layout.encoded.items():
        features = iter(visuals.features)
        kept = [
            _rows(next(features), keep[row, span.positions])
            for row, spans in enumerate(layout.spans[modality])
            for span in spans
        ]
        outputs[modality] = family.vision_output(kept, modality)
    return outputs


def _rows(features: Tensor, kept: Tensor) -> Tensor:
    """Kept rows: [N, D] → [K, D]; the very tensor where all are kept."""
    return features if kept.all() else features[kept.to(features.device)]


def next_position(position_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Position ids after each row's last token, int64 [A, B, 1] or [B, 1]."""
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = torch.where(attention_mask, columns, 0).amax(dim=1, keepdim=True)  # [B, 1]
    return position_ids.gather(-1, last.expand(*position_ids.shape[:-1], 1)) + 1


def _sample_reports(
    layout: PromptLayout, keep: Tensor, scores: Tensor | None
) -> tuple[SampleReport, ...]:
    reports = []
    for row, visuals in enumerate(layout.visuals):
        columns = (
            torch.cat([span.positions for span in visuals])
            if visuals
            else keep.new_empty(0, dtype=torch.long)
        )
        reports.append(
            SampleReport(
                kept_indices=keep[row].nonzero().flatten(),
                visual_indices=columns,
                kept_visual=keep[row, columns],
                scores=None if scores is None else scores[row, columns],
                visuals=visuals,
            )
        )
    return tuple(reports)
