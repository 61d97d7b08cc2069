"""The input of a mapper: how the instruction relates to the visual tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..device_copy import few_launches, to_device
from ..kernels.instruction_attention import attention_statistics
from ..mapper import MapperInput
from ..mapper.batch import BatchIndex, MapperBatch
from ..mapper.inputs import INPUTS, WORDS
from ..padding import past_end
from ..prompt import Modality, MultimodalPrompt, VisualSpan
from ..scoring_layer import ScoringLayer
from .embedding_statistics import embedding_statistics
from .visual_tokens import places_of

_SMALLEST_SHARE = 1e-9


@dataclass(frozen=True)
class PromptBatch:
    """The prompts of a batch that have visual tokens of one modality, as mappers see them.

    Attributes:
        samples: Which prompts, P of them.
        grids: Their grids, as in `MapperInput`.
        places: int64 [P * N], where each visual token lies in the B * S tokens of all prompts; any
            place on padding.
        weights: float32 [P, 1], visual tokens of this modality among those of the prompt.
        inputs: What mappers see.
    """

    samples: list[int]
    grids: list[tuple[Tensor, ...]]
    places: Tensor
    weights: Tensor
    inputs: MapperBatch


def mapper_batch(
    prompt: MultimodalPrompt,
    scoring_layer: ScoringLayer,
    modality: Modality,
    inputs: Collection[str] = INPUTS,
) -> PromptBatch | None:
    """What mappers see of the images, or the videos, of all prompts that have any.

    The attention is that of `instruction_attention`, with two statistics over the instruction
    tokens: their mean, as in the paper, and the highest share that one of them gives a visual token
    of all its attention to visual tokens. The second one preserves the one word that asks for
    something among many others.

    Args:
        prompt: The prompts.
        scoring_layer: Their queries and keys.
        modality: "image" or "video".
        inputs: Groups of channels besides attention, which always comes.

    Returns:
        The batch on the device of the layer; None if no prompt has visual tokens of that modality.
    """
    device = scoring_layer.key.device
    own = {
        sample: [visual for visual in visuals if visual.modality == modality]
        for sample, visuals in enumerate(prompt.visuals)
    }
    samples = [sample for sample, visuals in own.items() if visuals]
    if not samples:
        return None
    # 1. On the host: where the tokens are.
    length = prompt.visual_mask.shape[1]
    positions = [torch.cat([visual.positions.cpu() for visual in own[s]]) for s in samples]
    padded = pad_sequence(positions, batch_first=True)  # [P, N]
    numbers = torch.tensor(samples)[:, None]  # [P, 1]
    places = numbers * length + padded  # [P, N]
    among = torch.zeros(prompt.visual_mask.shape, dtype=torch.bool)  # [B, S]
    of_prompt = []
    for sample, chosen in zip(samples, positions, strict=True):
        among[sample, chosen] = True
        of_prompt.append(sum(len(visual.positions) for visual in prompt.visuals[sample]))
    counts = [len(chosen) for chosen in positions]
    shares = [count / whole for count, whole in zip(counts, of_prompt, strict=True)]
    weights = torch.tensor(shares, dtype=torch.float32)  # [P]
    parts = (numbers, padded, places.flatten(), among, weights.unsqueeze(1))
    numbers, padded, flat_places, among, weights = to_device(parts, device)
    grids = [_grids(own[sample]) for sample in samples]
    index = BatchIndex.of(counts, grids, device)
    # 2. On the device: what relates the instruction to them.
    statistics = attention_statistics(
        scoring_layer.query,
        scoring_layer.key,
        scoring_layer.sample,
        scoring_layer.position,
        scoring_layer.key_mask,
        among,
        scaling=scoring_layer.scaling,
        sliding_window=scoring_layer.sliding_window,
        mask=scoring_layer.mask,
        softcap=scoring_layer.softcap,
        sinks=scoring_layer.sinks,
        query_counts=scoring_layer.query_counts,
    )  # [2, B, heads, S]
    attention = statistics.permute(1, 3, 0, 2)[numbers, padded]  # [P, N, 2, heads]
    attention = attention.clamp(min=_SMALLEST_SHARE).log().permute(0, 2, 3, 1)  # [P, 2, heads, N]
    text = embedding = None
    if not {"text", "embedding"}.isdisjoint(inputs):
        text, embedding = _embedding_statistics(prompt, samples, counts, places, index, device)
    tokens = words = unasked = None
    if WORDS in inputs:
        tokens, words, unasked = _embeddings(prompt, samples, places, device)
    batch = MapperBatch(index, attention, text, embedding, tokens, words, unasked)
    return PromptBatch(samples, grids, flat_places, weights, batch)


def mapper_inputs(
    prompt: MultimodalPrompt,
    scoring_layer: ScoringLayer,
    modality: Modality,
    inputs: Collection[str] = INPUTS,
) -> list[MapperInput | None]:
    """As `mapper_batch`, prompt by prompt.

    Returns:
        One `MapperInput` per prompt, float32 on the device of the layer; None for prompts without
        visual tokens of that modality.
    """
    found: list[MapperInput | None] = [None] * len(prompt.visuals)
    batch = mapper_batch(prompt, scoring_layer, modality, inputs)
    if batch is None:
        return found
    seen = batch.inputs
    words_of = prompt.on_host.query.sum(dim=1).tolist()
    for number, (sample, count) in enumerate(zip(batch.samples, seen.index.counts, strict=True)):
        found[sample] = MapperInput(
            seen.attention[number, ..., :count],
            batch.grids[number],
            None if seen.text is None else seen.text[number, :, :count],
            None if seen.embedding is None else seen.embedding[number, :, :count],
            None if seen.tokens is None else seen.tokens[number, :count],
            None if seen.words is None else seen.words[number, : words_of[sample]],
        )
    return found


def _grids(visuals: Sequence[VisualSpan]) -> tuple[Tensor, ...]:
    """Grids over all visual tokens of a prompt, one image or video after another."""
    grids: list[Tensor] = []
    start = 0
    for visual in visuals:
        grids.extend(start + grid.index for grid in visual.grids)
        start += len(visual.positions)
    return tuple(grids)


def _embeddings(
    prompt: MultimodalPrompt, samples: Sequence[int], places: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """`tokens`, `words` and `unasked` of a `MapperBatch`, from `places` on the CPU, [P, N]."""
    embeds = prompt.inputs_embeds.flatten(0, 1).to(device)  # [B * S, D]
    asked = places_of(prompt.on_host.query, samples)  # [R] each
    parts = places, pad_sequence(asked, batch_first=True), past_end([*map(len, asked)])
    visual_index, word_index, unasked = to_device(parts, device)
    return embeds[visual_index], embeds[word_index], unasked


def _embedding_statistics(
    prompt: MultimodalPrompt,
    samples: Sequence[int],
    counts: Sequence[int],
    places: Tensor,
    index: BatchIndex,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Text and embedding of a `MapperBatch`, [P, 2, N] each, from `places` on the CPU, [P, N]."""
    asked = places_of(prompt.on_host.query, samples)  # [R] each
    if few_launches(device):
        tokens, words, unasked = _embeddings(prompt, samples, places, device)
        missing = None if index.missing is None else index.missing.squeeze(1)
        same = len(set(map(len, asked))) == 1
        return embedding_statistics(tokens, words, missing, None if same else unasked)
    # One prompt after another, to hold the embeddings of one at a time.
    embeds = prompt.inputs_embeds.flatten(0, 1).to(device)  # [B * S, D]
    parts = [
        embedding_statistics(embeds[own[:count]].unsqueeze(0), embeds[words].unsqueeze(0))
        for own, count, words in zip(places, counts, asked, strict=True)
    ]
    longest = places.shape[1]
    text, embedding = (
        torch.cat([pad(values, (0, longest - values.shape[-1])) for values in group])
        for group in zip(*parts, strict=True)
    )
    return text, embedding
