"""Compress one batch: encode, score, select, then rewrite the inputs of a stock forward."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import TokenCompressionConfig
from ..models.family import ModelFamily
from ..models.generic import GenericFamily
from ..prompt import MultimodalPrompt, VisualSpan
from ..scorers.base import check_finite, checked_scores, own_rule
from ..selection import KeptTokens, may_drop_tokens, select_tokens
from .fast_path import FastPath
from .generic_check import check_decoder_entry
from .host import on_host, to_host
from .inputs import PromptLayout, read_layout
from .precision import host_by_default, without_autocast
from .reading import read
from .report import CompressionReport, SampleReport
from .rewriting import CompressedInputs, Padding, check_policy, rewrite_prompt, with_features
from .setting import Setting
from .state import TokenCompression
from .stopwatch import CallTimes, Stopwatch
from .totals import count_call
from .word_embeddings import word_statistics

# Without the name of this module, which is internal.
_logger = logging.getLogger("hf_token_compress")
_MASK = "instruction_mask"


@host_by_default()
def compress_inputs(
    model: Any,
    family: ModelFamily,
    compression: TokenCompression,
    inputs: Mapping[str, Any],
    setting: Setting,
    *,
    padding: Padding | Literal["forward"],
    spare_position: bool = False,
    instruction_mask: Tensor | None = None,
    earlier: Mapping[str, Tensor] | None = None,
) -> CompressedInputs:
    """Compress one batch and report it: in `compression.last`, in totals and in the log.

    Args:
        model: The loaded model.
        family: Its family.
        compression: Where the report is left.
        inputs: Keyword arguments of the stock forward, with images or videos.
        setting: That of this call.
        padding: Where samples that became shorter are padded; "forward" where a forward does that.
        spare_position: Add one position of padding if there is none and position ids may have
            gaps: `generate` without a cache drops a mask that hides nothing, and Transformers
            would then read the gaps as borders between packed sequences.
        instruction_mask: bool or 0/1 [B, S], overrides which tokens are the instruction.
        earlier: Ids and token types of tokens before the prompts, whose images and videos may be
            among the inputs.

    Raises:
        TypeError, ValueError: An input is missing or does not fit the others, a prompt has no
            instruction token but the scorer needs one, the scorer did not return one finite score
            per token, or the positions of the model cannot follow the setting.
    """
    config = setting.base
    check_policy(model, family, config.position_ids)
    if isinstance(inputs.get("logits_to_keep"), Tensor):
        raise ValueError(
            "logits_to_keep must be a number with token compression: indices would point into the "
            "uncompressed prompt."
        )
    scoring, rewriting = Stopwatch(model.device), Stopwatch(model.device)
    # 1. Run the vision part, and find the visual tokens.
    with rewriting.running():
        host = on_host({**inputs, _MASK: instruction_mask})
        layout = read_layout(
            model,
            family,
            inputs,
            host=host,
            vision_attention="vision_attention" in setting.scorer.needs,
            earlier=earlier,
        )
        if earlier:
            inputs = with_features(model, family, inputs, layout)
        budgets = setting.budgets(len(layout.input_ids))
        must_score = may_drop_tokens(layout.visuals, budgets)
    # 2. Score, if any prompt may lose tokens.
    scores: Tensor | None = None
    mask = layout.on_host.attention_mask
    kept = KeptTokens(layout.attention_mask, tuple(mask.sum(dim=1).tolist()), mask)
    if must_score:
        with torch.no_grad(), without_autocast():
            with scoring.running():
                prompt, scores = _score(
                    model, family, setting, layout, inputs, host, compression.fast_path
                )
            # 3. Select the tokens to keep.
            with rewriting.running():
                kept = _select(setting, layout, prompt, scores, budgets)
    # 4. Rewrite the inputs.
    with rewriting.running():
        if padding == "forward":
            padding = "left" if bool(mask[:, -1].all()) else "tail"
        compressed = rewrite_prompt(
            model,
            family,
            config,
            inputs,
            layout,
            kept,
            padding,
            host=host,
            spare_position=spare_position,
        )
        policy = config.position_ids
        unchecked = isinstance(family, GenericFamily) and policy not in compression.checked
        if unchecked and compressed.index is not None:
            check_decoder_entry(model, inputs, layout, compressed, policy)
            compression.checked.add(policy)
    report = CompressionReport(
        config=setting.config,
        visual_tokens=_visual_tokens(layout, kept),
        times=CallTimes(layout.vision, layout.attention, scoring, rewriting),
        make_samples=functools.partial(
            _sample_reports,
            layout.visuals,
            layout.on_host.visual_mask,
            kept.mask,
            scores,
            budgets,
            config.scorer_name,
            layout.tokens_before,
        ),
        is_checked=scores is None or scores.device.type == "cpu",
    )
    compression.last = report
    count_call(compression, report)
    # A summary waits for the device, so it is only made where somebody wants it.
    if _logger.isEnabledFor(logging.INFO):
        _logger.info(report.summary())
    return compressed


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _score(
    model: Any,
    family: ModelFamily,
    setting: Setting,
    layout: PromptLayout,
    inputs: Mapping[str, Any],
    host: Mapping[str, Any],
    fast_path: FastPath | None,
) -> tuple[MultimodalPrompt, Tensor]:
    """The prompts as the scorer sees them, and the scores of all tokens, float32 [B, S]."""
    scorer, config = setting.scorer, setting.base
    reading = read(
        model,
        family,
        layout,
        inputs,
        config.instruction,
        host=host,
        instruction_mask=host[_MASK],
        fast_path=fast_path,
    )
    needed: dict[str, Any] = dict(reading.scoring_layers(scorer))
    if "vision_attention" in scorer.needs:
        needed["vision_attention"] = layout.vision_attention()
    if "word_statistics" in scorer.needs:
        needed["word_statistics"] = word_statistics(model)
    if "model" in scorer.needs:
        # `generate` takes arguments that the model's own forward does not.
        own = inspect.signature(model.forward).parameters
        whole = {name: value for name, value in inputs.items() if name in own}
        needed.update(model=model, inputs=whole)
    scores = scorer.score(reading.prompt, **needed)
    return reading.prompt, checked_scores(scores, reading.prompt, config.scorer_name)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _select(
    setting: Setting,
    layout: PromptLayout,
    prompt: MultimodalPrompt,
    scores: Tensor,
    budgets: Sequence[TokenCompressionConfig],
) -> KeptTokens:
    """The tokens to keep."""
    return select_tokens(
        prompt.attention_mask,
        prompt.visuals,
        scores,
        budgets,
        attention_mask_on_host=layout.on_host.attention_mask,
        inputs_embeds=lambda: prompt.inputs_embeds,
        own_rule=own_rule(setting.scorer, prompt, setting.base.scorer_name),
    )


def _visual_tokens(layout: PromptLayout, kept: KeptTokens) -> list[tuple[int, int]]:
    """Visual tokens of each prompt, before and after."""
    before = layout.on_host.visual_mask.sum(dim=1).tolist()
    whole = layout.on_host.attention_mask.sum(dim=1).tolist()
    counts = zip(before, whole, kept.counts, strict=True)
    return [(visual, visual - tokens + left) for visual, tokens, left in counts]


def _sample_reports(
    visuals_of_samples: Sequence[tuple[VisualSpan, ...]],
    visual_mask: Tensor,
    keep: Tensor,
    scores: Tensor | None,
    budgets: Sequence[TokenCompressionConfig],
    scorer_name: str,
    tokens_before: int,
) -> tuple[SampleReport, ...]:
    keep, *read = to_host([keep] if scores is None else [keep, scores])  # [B, S] each
    scores = read[0] if read else None
    if scores is not None:
        check_finite(scores, visual_mask, scorer_name)
    reports = []
    for sample, visuals in enumerate(visuals_of_samples):
        none = keep.new_empty(0, dtype=torch.long)
        positions = torch.cat([none, *(span.positions for span in visuals)])  # [N]
        reports.append(
            SampleReport(
                kept_indices=keep[sample].nonzero().flatten(),
                visual_indices=positions,
                kept_visual=keep[sample, positions],
                scores=None if scores is None else scores[sample, positions],
                visuals=visuals,
                retention_ratio=budgets[sample].retention_ratio,
            )
        )
    if tokens_before:
        reports = [_shifted(report, tokens_before) for report in reports]
    return tuple(reports)


def _shifted(report: SampleReport, count: int) -> SampleReport:
    """The report with positions counted from `count` tokens before."""
    return replace(
        report,
        kept_indices=report.kept_indices + count,
        visual_indices=report.visual_indices + count,
        visuals=tuple(replace(own, positions=own.positions + count) for own in report.visuals),
    )
