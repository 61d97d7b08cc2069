"""Scores and kept tokens from the attention maps that a stock model returns."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.prompt import MultimodalPrompt
from hf_token_compress.selection import select_tokens


def eager_maps(
    model: Any, inputs: Mapping[str, Any], layers: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """Attention maps by decoder layer, float [B, heads, S, S] each.

    Args:
        model: A stock model; a copy of it runs with eager attention.
        inputs: Arguments of its forward.
        layers: The layers that have a map, where a hybrid has not one for every layer.

    Raises:
        ValueError: The decoder does not return one map for each of these layers.
    """
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True, use_cache=False).attentions
    shapes = {None if own is None else tuple(own.shape[2:]) for own in maps or ()}
    length = inputs["input_ids"].shape[1]
    if layers is None:
        layers = range(model.config.get_text_config().num_hidden_layers)
    if maps is None or len(maps) != len(layers) or shapes != {(length, length)}:
        kind = model.config.get_text_config().model_type
        raise ValueError(f"A decoder of type {kind} returns no eager attention map per layer.")
    return dict(zip(layers, maps, strict=True))


def eager_scores(
    model: Any,
    inputs: Mapping[str, Any],
    prompt: MultimodalPrompt,
    depth: int = 0,
    layers: Sequence[int] | None = None,
) -> Tensor:
    """Mean over heads and instruction tokens of a map, float32 [B, S].

    It is that of the first layer from `depth` on that has one; `layers` as for `eager_maps`.
    """
    maps = eager_maps(model, inputs, layers)
    scoring_layer = min(layer for layer in maps if layer >= depth)
    own = maps[scoring_layer].float().mean(1)  # [B, S, S]
    instruction = prompt.instruction_mask & prompt.attention_mask
    return torch.stack([rows[asked].mean(0) for rows, asked in zip(own, instruction, strict=True)])


def kept_visual(
    scores: Tensor, prompt: MultimodalPrompt, config: TokenCompressionConfig
) -> list[Tensor]:
    """Which visual tokens of each prompt these scores keep, bool [N] each."""
    keep = select_tokens(prompt.attention_mask, prompt.visuals, scores, [config] * len(scores)).mask
    return [keep[sample, positions] for sample, positions in enumerate(_visual(prompt))]


def assert_scores_and_tokens(
    samples: Any,
    expected: Tensor,
    prompt: MultimodalPrompt,
    config: TokenCompressionConfig,
    tie: float = 1e-6,
) -> None:
    """Reported scores agree within 1e-5 of their size, and the kept tokens are the expected ones.

    Tokens whose expected score is within `tie` of the cut may go either way: newline tokens are all
    one vector, so a decoder without positions gives them one score, up to rounding.
    """
    by_scores_alone = config.min_tokens_per_visual == config.structure_share == 0
    assert by_scores_alone, "otherwise the cut is not between two scores"
    tokens = kept_visual(expected, prompt, config)
    parts = zip(samples, tokens, expected, _visual(prompt), strict=True)
    for sample, kept, row, positions in parts:
        if len(positions) == 0:
            continue
        scores = row[positions]
        torch.testing.assert_close(sample.scores, scores, rtol=1e-5, atol=1e-7)
        assert int(sample.kept_visual.sum()) == int(kept.sum()) < len(kept)
        lowest, highest = scores[kept].min(), scores[~kept].max()
        decided = (scores > highest + tie) | (scores < lowest - tie)
        assert decided.float().mean() > 0.8
        assert torch.equal(sample.kept_visual[decided], kept[decided])


def _visual(prompt: MultimodalPrompt) -> list[Tensor]:
    """Positions of the visual tokens of each prompt, int64 [N] each."""
    none = torch.zeros(0, dtype=torch.long)
    return [torch.cat([none, *(span.positions for span in own)]) for own in prompt.visuals]
