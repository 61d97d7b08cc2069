"""What a compressed call has to do, from its scores: plain loops over samples and tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from moved_positions import moved_up
from tiny_models import PADDING, family_of
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hf_token_compress.prompt import VisualSpan

TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")


def expected_kept(
    scores: Tensor,
    visuals: Sequence[VisualSpan],
    embeddings: Tensor,
    *,
    retention_ratio: float,
    min_visual_tokens: int,
    max_visual_tokens: int | None = None,
    min_tokens_per_visual: int = 1,
    min_tokens_per_frame: int = 0,
    top_p: float | None = None,
    structure_share: float = 0.25,
    selection: str = "top_k",
    **_: Any,
) -> list[int]:
    """Which of the N visual tokens of a prompt are kept, ascending.

    Args:
        scores: float32 [N].
        visuals: Images and videos of the prompt.
        embeddings: float32 [N, D], what the language model gets for them.
    """
    values, total = scores.tolist(), len(scores)
    if total < min_visual_tokens:
        return list(range(total))
    limit = max(1, round(retention_ratio * total))
    limit = min(limit, total, max_visual_tokens or total)
    budget = min(limit, total if top_p is None else _share_of(values, top_p, []))
    # 1. How many tokens the minimums need.
    minimums = [
        (_frames(visuals), min_tokens_per_frame),
        (_visuals(visuals), min_tokens_per_visual),
    ]
    sizes = [sum(min(len(group), least) for group in groups) for groups, least in minimums]
    # An only image or video has its minimum from any choice, an only frame if all is on it.
    binding = [
        (groups, least)
        for groups, least in minimums
        if least > 0 and groups and len(groups[0]) < total
    ]
    needed = sum(sum(min(len(group), least) for group in groups) for groups, least in binding)
    needed = max(needed, *sizes)
    # 2. Structure first, evenly spread.
    structure = _structure(visuals)
    most = max(0, min(int(structure_share * budget), budget - needed))
    if len(structure) > most:
        structure = [structure[(2 * i + 1) * len(structure) // (2 * most)] for i in range(most)]
    if top_p is not None and structure:
        budget = min(limit, _share_of(values, top_p, structure))
    # 3. Then the best of each frame, and of each image or video.
    kept = set(structure)
    for groups, least in binding:
        for group in groups:
            others = [token for token in group if token not in structure]
            others.sort(key=lambda token: (token not in kept, -values[token], token))
            kept.update(others[:least])
    # 4. Then the best of all.
    budget = max(budget, *sizes)
    if budget >= total:
        return list(range(total))
    if selection == "diverse" and budget > len(kept):
        kept.update(_diverse(scores, embeddings, kept, budget - len(kept)))
    else:
        order = sorted(set(range(total)) - kept, key=lambda token: (-values[token], token))
        kept.update(order[: max(0, budget - len(kept))])
    return sorted(kept)


def _share_of(values: Sequence[float], top_p: float, first: Sequence[int]) -> int:
    """How many of the highest values, after the `first` tokens, sum to this share."""
    order = sorted(
        range(len(values)), key=lambda token: (token not in first, -values[token], token)
    )
    if sum(values) == 0:
        return len(values)
    for count in range(1, len(values) + 1):
        if sum(values[token] for token in order[:count]) >= top_p * sum(
            values[token] for token in order
        ):
            return max(count, len(first))
    raise AssertionError("The sum of all is the whole sum.")


def _visuals(visuals: Sequence[VisualSpan]) -> list[list[int]]:
    """The tokens of each image or video."""
    groups, start = [], 0
    for visual in visuals:
        groups.append(list(range(start, start + len(visual.positions))))
        start += len(visual.positions)
    return groups


def _frames(visuals: Sequence[VisualSpan]) -> list[list[int]]:
    """The tokens of each frame of each video, newlines apart."""
    groups: list[list[int]] = []
    for visual, tokens in zip(visuals, _visuals(visuals), strict=True):
        if visual.modality == "video":
            for grid in visual.grids:
                groups += [[tokens[cell] for cell in frame.flatten()] for frame in grid.index]
    return groups


def _structure(visuals: Sequence[VisualSpan]) -> list[int]:
    """The tokens on no grid of an image or video that has one."""
    found = []
    for visual, tokens in zip(visuals, _visuals(visuals), strict=True):
        cells = {int(cell) for grid in visual.grids for cell in grid.index.flatten()}
        if cells:
            found += [token for place, token in enumerate(tokens) if place not in cells]
    return found


def _diverse(scores: Tensor, embeddings: Tensor, kept: set[int], missing: int) -> list[int]:
    """Two rounds of: worth is importance × (1 − largest cosine to what is kept)."""
    low, high = scores.min(), scores.max()
    importance = (scores - low) / (high - low) if high > low else torch.ones_like(scores)
    cosine = cosine_similarity(embeddings[:, None], embeddings[None], dim=-1)  # [N, N]

    def worth(token: int, others: Sequence[int]) -> float:
        largest = max((float(cosine[token, other]) for other in others), default=-1.0)
        return float(importance[token]) * (1 - largest)

    count = len(scores)
    chosen: list[int] = []
    top = max(missing, 128)
    step = math.ceil(max(count - top, 1) / top)
    ranks = [*range(min(top, count)), *range(top, max(top, count), step)]
    for remaining in (2, 1):
        taken = [*kept, *chosen]
        if missing == len(chosen):
            break
        free = [token for token in range(count) if token not in taken]
        order = sorted(free, key=lambda token: (-worth(token, taken), token))
        pool = [order[rank] for rank in ranks if rank < len(order)]
        # Only better tokens of the pool, which come first, lower a value.
        values = {token: worth(token, [*taken, *pool[:place]]) for place, token in enumerate(pool)}
        wanted = math.ceil((missing - len(chosen)) / remaining) if missing > 1 else 1
        chosen += sorted(pool, key=lambda token: -values[token])[:wanted]
    return chosen


def expected_inputs(
    stock: Any,
    inputs: Mapping[str, Tensor],
    samples: Sequence[tuple[Sequence[VisualSpan], Sequence[int]]],
    *,
    position_ids: str = "original",
    tail: bool = False,
    uncached: bool = False,
) -> dict[str, Any]:
    """What the stock model gets, features apart.

    Args:
        stock: The stock model.
        inputs: The caller's.
        samples: Images and videos of each prompt, and the positions of the tokens that it keeps.
        position_ids: The policy.
        tail: Whether the columns after the last visual token stay as they are.
        uncached: Whether it is for a `generate` without a cache.
    """
    mask = inputs["attention_mask"].bool()
    length = mask.shape[1]
    whole = _whole_positions(stock, inputs)  # [A, B, S] or [B, S]
    four_axes = whole.ndim == 3 and len(whole) == 4
    dropping = [int(own.sum()) > len(kept) for own, (_, kept) in zip(mask, samples, strict=True)]
    if not any(dropping):
        same = {name: inputs[name] for name in inputs if name in ("labels", *TOKEN_TYPES)}
        return {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "position_ids": whole,
            **same,
        }
    # 1. The places of the shorter prompts: a position of the caller's, or None for padding.
    places: list[list[int | None]] = []
    last_visual = max(int(visual.positions[-1]) for visuals, _ in samples for visual in visuals)
    for _, kept in samples:
        own: list[int | None] = [
            position for position in kept if not tail or position <= last_visual
        ]
        if tail:
            own += [at if at in set(kept) else None for at in range(last_visual + 1, length)]
        places.append(own)
    longest = max(map(len, places))
    places = [[None] * (longest - len(own)) + own for own in places]
    if uncached and not four_axes and all(None not in own for own in places):
        places = [[None, *own] for own in places]

    # 2. What stands there.
    def taken(values: Tensor, fill: int) -> Tensor:
        rows = zip(values.tolist(), places, strict=True)
        return torch.tensor([[fill if at is None else row[at] for at in own] for row, own in rows])

    shorter = torch.tensor([[at is not None for at in own] for own in places])
    expected: dict[str, Any] = {
        "input_ids": taken(inputs["input_ids"], PADDING),
        "attention_mask": shorter.long(),
    }
    for name in TOKEN_TYPES:
        if name in inputs:
            expected[name] = taken(inputs[name], 0)
    if "labels" in inputs:
        expected["labels"] = taken(inputs["labels"], -100)
        for row, own in zip(expected["labels"], places, strict=True):
            row[[at == 0 for at in own]] = -100
    # 3. Where it stands.
    axes = whole if whole.ndim == 3 else whole[None]
    moved = axes.clone()
    for sample, (visuals, kept) in enumerate(samples):
        if position_ids == "grid":
            keep = torch.zeros(length, dtype=torch.bool)
            keep[list(kept)] = True
            moved[:, sample] = moved_up(
                axes[:, sample], keep, [visual.positions for visual in visuals]
            )
    axes = torch.stack([taken(axis, 0) for axis in moved])
    in_order = torch.zeros_like(shorter, dtype=torch.long)
    for sample, own in enumerate(shorter):
        in_order[sample, own] = torch.arange(int(own.sum()))
        if position_ids == "compact" and dropping[sample]:
            axes[:, sample] = in_order[sample]
    if four_axes:
        axes[0] = in_order
    expected["position_ids"] = axes if whole.ndim == 3 else axes[0]
    return expected


def _whole_positions(stock: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Position ids of the whole prompts, int64 [A, B, S] or [B, S]."""
    own = family_of(stock).position_ids(stock, inputs)
    if own.ndim == 3:
        return own
    # The stock forward counts padding too.
    batch, length = own.shape
    return torch.arange(length).expand(batch, length)


def whole_features(stock: Any, inputs: Mapping[str, Tensor], modality: str) -> list[Tensor]:
    """Features of each image or video, float [N, D]."""
    names = {
        "image": ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images"),
        "video": ("pixel_values_videos", "video_grid_thw"),
    }[modality]
    given = {name: inputs[name] for name in names if name in inputs}
    encode = getattr(stock.base_model, f"get_{modality}_features")
    features = encode(**given, return_dict=True).pooler_output
    return [own.flatten(0, -2) for own in features]
