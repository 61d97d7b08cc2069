"""Compress one batch: encode, score, select, then rewrite the inputs of a stock forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..config import TokenCompressionConfig
from ..models.family import ModelFamily
from ..prompt import VisualSpan
from ..rewrite import PaddingSide
from ..scorers.base import checked_scores
from ..selection import select_visual_tokens, top_p_budget, visual_token_budget
from .depth import at_depth
from .inputs import PromptLayout, check_shape, encode_visuals, has_pixels_to_encode, read_layout
from .reading import instruction_tokens
from .report import CompressionReport, SampleReport
from .rewriting import CompressedInputs, rewrite_prompt
from .state import TokenCompression
from .stopwatch import Stopwatch


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
    """Compress one batch and leave a report in `compression.last`.

    Args:
        model: The loaded model.
        family: Its family.
        compression: Its setting.
        inputs: Keyword arguments of the stock forward, with images or videos.
        padding_side: Side on which samples that became shorter are padded.
        spare_position: Add one position of padding if there is none and position ids may have
            gaps: `generate` without a cache drops a mask that hides nothing, and Transformers
            would then read the gaps as borders between packed sequences.
        retention_ratio: Overrides the setting for this call, in (0, 1].
        instruction_mask: bool or 0/1 [B, S], overrides which tokens are the instruction.

    Raises:
        TypeError, ValueError: An input is missing or does not fit the others, a prompt has no
            instruction token but the scorer needs one, or the scorer did not return one finite
            score per token.
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

    # 1. Run the vision part, unless the caller passed its features.
    with vision.running() if has_pixels_to_encode(family, inputs) else nullcontext():
        encoded = encode_visuals(model, family, inputs)
    # 2. Find the visual tokens, and how many of them each prompt may keep.
    with rewriting.running():
        layout = read_layout(model, family, inputs, encoded)
        budgets = [_budget(visuals, config) for visuals in layout.visuals]
    # 3. Score, if any prompt may lose tokens.
    scores = None
    if config.top_p is not None or any(
        budget < _visual_tokens(visuals)
        for budget, visuals in zip(budgets, layout.visuals, strict=True)
    ):
        with scoring.running(), torch.no_grad():
            scores = _score(model, family, compression, config, layout, inputs, instruction_mask)
    # 4. Select the tokens to keep, and rewrite the inputs.
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


def _visual_tokens(visuals: tuple[VisualSpan, ...]) -> int:
    return sum(len(span.positions) for span in visuals)


def _budget(visuals: tuple[VisualSpan, ...], config: TokenCompressionConfig) -> int:
    return visual_token_budget(
        _visual_tokens(visuals),
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
    """Scores of all tokens, float32 [B, S]."""
    if instruction_mask is None:
        instruction_mask = instruction_tokens(
            model, family, layout, config.instruction, inputs.get("labels")
        )
    else:
        check_shape("instruction_mask", instruction_mask, layout.input_ids)
    word_embeddings = family.embed(model, layout.input_ids)
    prompt = layout.prompt(word_embeddings, instruction_mask.to(layout.attention_mask))
    scorer = compression.scorer
    context: dict[str, Any] = {}
    if scorer.needs_model:
        # `generate` takes arguments that the model's own forward does not.
        own = inspect.signature(model.forward).parameters
        whole = {name: value for name, value in inputs.items() if name in own}
        context = {"model": model, "inputs": whole}
    prompt, layer = at_depth(model, family, prompt, scorer.scoring_depth)
    with layer.in_evaluation_mode():
        scores = scorer.score(prompt, layer, **context)
    return checked_scores(scores, prompt, config.scorer_name)


def _keep_mask(
    layout: PromptLayout,
    budgets: list[int],
    scores: Tensor | None,
    config: TokenCompressionConfig,
) -> Tensor:
    """Tokens that stay, bool [B, S]: all text, and the best visual tokens of each prompt."""
    keep = layout.attention_mask.clone()
    if scores is None:
        return keep
    for sample, visuals in enumerate(layout.visuals):
        if not visuals or _visual_tokens(visuals) < config.min_visual_tokens:
            continue
        positions = torch.cat([span.positions for span in visuals])  # [N]
        visual_scores = scores[sample, positions]  # [N]
        budget = budgets[sample]
        if config.top_p is not None:
            budget = min(budget, top_p_budget(visual_scores, config.top_p))
        kept = select_visual_tokens(
            visual_scores,
            [len(span.positions) for span in visuals],
            budget,
            min_tokens_per_visual=config.min_tokens_per_visual,
            frames=_video_frames(visuals),
            min_tokens_per_frame=config.min_tokens_per_frame,
        )
        # The last token stays, whatever it is: the next token is predicted from it.
        last = layout.attention_mask[sample].nonzero()[-1]
        keep[sample, positions] = kept | (positions == last)
    return keep


def _video_frames(visuals: tuple[VisualSpan, ...]) -> list[Tensor]:
    """The visual tokens of each video frame of a prompt, int64 [n] each, as indices into [N]."""
    frames: list[Tensor] = []
    start = 0
    for span in visuals:
        if span.modality == "video":
            by_frame = zip(*(grid.index + start for grid in span.grids), strict=True)
            frames += [torch.cat([part.flatten() for part in parts]) for parts in by_frame]
        start += len(span.positions)
    return frames


def _sample_reports(
    layout: PromptLayout, keep: Tensor, scores: Tensor | None
) -> tuple[SampleReport, ...]:
    reports = []
    for sample, visuals in enumerate(layout.visuals):
        none = keep.new_empty(0, dtype=torch.long)
        positions = torch.cat([none, *(span.positions for span in visuals)])  # [N]
        reports.append(
            SampleReport(
                kept_indices=keep[sample].nonzero().flatten(),
                visual_indices=positions,
                kept_visual=keep[sample, positions],
                scores=None if scores is None else scores[sample, positions],
                visuals=visuals,
            )
        )
    return tuple(reports)
