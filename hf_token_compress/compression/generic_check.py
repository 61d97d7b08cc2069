"""A check of families that are not verified: does the decoder get what it should?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import PositionIdPolicy
from .inputs import PromptLayout
from .precision import without_autocast
from .probe import DecoderEntry, Probe
from .rewriting import CompressedInputs, moved_up

# Of the largest embedding. The features are computed twice, with the same kernels.
_TOLERANCE = 1e-2


@torch.compiler.disable  # type: ignore[untyped-decorator]
@torch.no_grad()
@without_autocast()
def check_decoder_entry(
    model: Any,
    inputs: Mapping[str, Any],
    layout: PromptLayout,
    compressed: CompressedInputs,
    policy: PositionIdPolicy,
) -> None:
    """Compare what the decoder gets of a compressed prompt with what it gets of the whole one.

    The stock forward runs twice, up to the decoder: on the caller's inputs, and on the rewritten
    ones. Kept tokens must have the same embeddings, and positions that are as far apart, or as the
    policy "grid" moves them; "compact" ones are not compared.

    Args:
        model: The loaded model.
        inputs: Keyword arguments of the stock forward.
        layout: The batch of B prompts of S tokens.
        compressed: What was made of it.
        policy: The policy of position ids that it follows.

    Raises:
        ValueError: They differ.
    """
    mask = layout.attention_mask.long()
    whole = Probe(model, {**inputs, "attention_mask": mask}).entry()
    short = Probe(model, compressed.inputs).entry()
    left = compressed.inputs["attention_mask"].bool()  # [B, K]
    expected, actual = whole.inputs_embeds[compressed.keep], short.inputs_embeds[left]
    if expected.shape != actual.shape or not _close(expected, actual):
        raise _unlike(model, "embeddings")
    if policy == "compact":
        return
    places = _positions(whole, layout.attention_mask)  # [A, B, S]
    if policy == "grid":
        places = moved_up(places, layout, compressed.keep)
    if not _same_steps(places, _positions(short, left), compressed.keep, left):
        raise _unlike(model, "positions")


def _close(expected: Tensor, actual: Tensor) -> bool:
    expected, actual = expected.float(), actual.float()
    scale = expected.abs().max()
    return bool(((expected - actual).abs().max() <= _TOLERANCE * scale).item())


def _same_steps(expected: Tensor, actual: Tensor, keep: Tensor, left: Tensor) -> bool:
    """Whether the positions of kept tokens are as far from each other, [A, B, S] and [A, B, K]."""
    if expected.shape[0] != actual.shape[0]:
        return False
    for sample in range(len(keep)):
        own = expected[:, sample, keep[sample]]  # [A, kept]
        if not torch.equal(own.diff(), actual[:, sample, left[sample]].diff()):
            return False
    return True


def _positions(entry: DecoderEntry, mask: Tensor) -> Tensor:
    """Positions along each axis, int64 [A, B, S]; without the text order of mRoPE."""
    positions = entry.position_ids
    if positions is None:
        positions = torch.arange(mask.shape[1], device=mask.device)[None]  # [1, S]
    if positions.ndim == 2:
        return positions.expand(mask.shape)[None]
    # The first of four axes counts text order, which has no gaps.
    return positions[1:] if len(positions) == 4 else positions


def _unlike(model: Any, what: str) -> ValueError:
    return ValueError(
        f"{type(model).__name__} is not one of the verified families, and its language model would "
        f"get other {what} for the kept tokens than in the whole prompt: write a family for "
        "it and register it with register_family."
    )
