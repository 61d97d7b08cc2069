"""Compress one batch: encode, score, select, then rewrite the inputs of a stock forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..config import TokenCompressionConfig
from ..models.family import ModelFamily
from ..models.generic import GenericFamily
from ..scorers.base import checked_scores
from ..selection import may_drop_tokens, select_tokens
from .generic_check import check_decoder_entry
from .inputs import PromptLayout, read_layout
from .precision import without_autocast
from .reading import check_depth, read
from .report import CompressionReport, SampleReport
from .rewriting import CompressedInputs, Padding, rewrite_prompt
from .state import TokenCompression
from .stopwatch import Stopwatch


def compress_inputs(
    model: Any,
    family: ModelFamily,
    compression: TokenCompression,
    inputs: Mapping[str, Any],
    *,
    padding: Padding,
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
        padding: Where samples that became shorter are padded.
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
    scoring, rewriting = Stopwatch(model.device), Stopwatch(model.device)
    # 1. Run the vision part, and find the visual tokens.
    with rewriting.running():
        layout = read_layout(
            model,
            family,
            inputs,
            vision_attention="vision_attention" in compression.scorer.needs,
        )
        must_score = may_drop_tokens(layout.visuals, config)
    # 2. Score, if any prompt may lose tokens.
    scores: Tensor | None = None
    if must_score:
        with scoring.running(), torch.no_grad():
            scores = _score(model, family, compression, layout, inputs, instruction_mask)
    # 3. Select the tokens to keep, and rewrite the inputs.
    with rewriting.running():
        keep = select_tokens(layout.attention_mask, layout.visuals, scores, config)
        compressed = rewrite_prompt(
            model, family, config, inputs, layout, keep, padding, spare_position=spare_position
        )
        if isinstance(family, GenericFamily) and not compression.checked:
            compression.checked = _check(model, config, inputs, layout, compressed)
    compression.last = CompressionReport(
        samples=_sample_reports(layout, keep, scores),
        vision_ms=layout.vision_ms,
        scoring_ms=scoring.milliseconds + layout.attention_ms,
        rewriting_ms=rewriting.milliseconds - layout.vision_ms - layout.attention_ms,
    )
    return compressed


def _check(
    model: Any,
    config: TokenCompressionConfig,
    inputs: Mapping[str, Any],
    layout: PromptLayout,
    compressed: CompressedInputs,
) -> bool:
    """Whether this call could be checked."""
    if compressed.index is None or config.position_ids != "original":
        return False
    check_decoder_entry(model, inputs, layout, compressed)
    return True


@torch.compiler.disable  # type: ignore[untyped-decorator]
@without_autocast()
def _score(
    model: Any,
    family: ModelFamily,
    compression: TokenCompression,
    layout: PromptLayout,
    inputs: Mapping[str, Any],
    instruction_mask: Tensor | None,
) -> Tensor:
    """Scores of all tokens, float32 [B, S]."""
    scorer, config = compression.scorer, compression.config
    check_depth(model, scorer.scoring_depth)
    reading = read(
        model,
        family,
        layout,
        inputs,
        config.instruction,
        instruction_mask=instruction_mask,
        fast_path=compression.fast_path,
    )
    needed: dict[str, Any] = {}
    if "scoring_layer" in scorer.needs:
        needed["scoring_layer"] = reading.scoring_layer(scorer.scoring_depth)
    if "vision_attention" in scorer.needs:
        needed["vision_attention"] = layout.vision_attention()
    if "model" in scorer.needs:
        # `generate` takes arguments that the model's own forward does not.
        own = inspect.signature(model.forward).parameters
        whole = {name: value for name, value in inputs.items() if name in own}
        needed.update(model=model, inputs=whole)
    scores = scorer.score(reading.prompt, **needed)
    return checked_scores(scores, reading.prompt, config.scorer_name)


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
