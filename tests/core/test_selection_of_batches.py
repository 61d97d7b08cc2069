"""A batch keeps of each prompt what the prompt keeps alone, and the host knows how many tokens."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.prompt import TokenGrid, VisualSpan
from hf_token_compress.selection import KeptTokens, keep_of_visuals, select_tokens

pytestmark = pytest.mark.core

Visual = tuple[str, int, int, int]  # modality, frames, tokens of a frame, tokens on no grid
visuals_of_prompts = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["image", "video"]),
            st.integers(1, 3),
            st.integers(1, 4),
            st.integers(0, 2),
        ),
        max_size=3,
    ),
    min_size=1,
    max_size=3,
)
settings = st.fixed_dictionaries(
    {
        "retention_ratio": st.sampled_from([0.1, 0.3, 0.5, 1.0]),
        "min_visual_tokens": st.sampled_from([0, 6]),
        "min_tokens_per_visual": st.integers(0, 2),
        "min_tokens_per_frame": st.integers(0, 2),
        "rule": st.sampled_from([{}, {"top_p": 0.6}, {"selection": "diverse"}]),
    }
)


def prompt_of(visuals: list[Visual], text_after: int) -> tuple[Tensor, list[VisualSpan]]:
    """The mask of a prompt with a token of text before each image or video, and where they are."""
    spans, length = [], 0
    for modality, frames, size, rest in visuals:
        start, count = length + 1, frames * size + rest
        grid = TokenGrid(torch.arange(frames * size).view(frames, 1, size))
        spans.append(VisualSpan(modality, torch.arange(start, start + count), (grid,)))  # type: ignore[arg-type]
        length = start + count
    return torch.ones(max(1, length + text_after), dtype=torch.bool), spans


@given(
    visuals=visuals_of_prompts,
    options=settings,
    text_after=st.integers(0, 2),
    right=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_batch_keeps_what_its_prompts_keep_alone(
    visuals: list[list[Visual]], options: dict[str, Any], text_after: int, right: bool, seed: int
) -> None:
    config = TokenCompressionConfig(**options.pop("rule"), **options)
    prompts = [prompt_of(own, text_after) for own in visuals]
    length = max(len(mask) for mask, _ in prompts)
    generator = torch.Generator().manual_seed(seed)
    # Few distinct scores, so that ties are common.
    scores = torch.randint(4, (len(prompts), length), generator=generator).float()
    embeds = torch.randn(len(prompts), length, 6, generator=generator)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    spans = []
    for sample, (own, found) in enumerate(prompts):
        shift = 0 if right else length - len(own)
        mask[sample, shift : shift + len(own)] = True
        spans.append(
            [VisualSpan(span.modality, span.positions + shift, span.grids) for span in found]
        )
    kept = select_tokens(mask, spans, scores, [config] * len(prompts), inputs_embeds=lambda: embeds)
    expected = mask.clone()
    for sample, own in enumerate(spans):
        if not own:
            continue
        positions = torch.cat([span.positions for span in own])
        own_embeds = embeds[sample, positions]
        expected[sample, positions] = keep_of_visuals(
            own, scores[sample, positions], config, embed=functools.partial(torch.clone, own_embeds)
        )
        expected[sample, mask[sample].nonzero()[-1]] = True  # the next token follows it
    assert torch.equal(kept.mask, expected)
    assert kept.counts == KeptTokens.read(expected).counts
