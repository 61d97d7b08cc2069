"""The visual tokens of a batch, prompt by prompt, and how alike they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import Self

from ..device_copy import few_launches, to_device
from ..padding import past_end
from ..prompt import MultimodalPrompt


def score_each_prompt(prompt: MultimodalPrompt, score: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Scores of a batch from those of each prompt.

    Args:
        prompt: B prompts of S tokens.
        score: From the number of a prompt and the positions of its visual tokens, int64 [N], to
            their scores, [N]; not called for prompts without.

    Returns:
        float32 [B, S], zero elsewhere.
    """
    mask = prompt.visual_mask
    scores = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)  # [B, S]
    found = [own.nonzero().flatten() for own in prompt.on_host.visual]  # [N] each
    for sample, positions in enumerate(to_device(found, mask.device)):
        if len(positions):
            scores[sample, positions] = score(sample, positions).to(scores)
    return scores


def unit_embeddings(prompt: MultimodalPrompt, sample: int, positions: Tensor) -> Tensor:
    """Embeddings of a prompt's tokens at length 1, float32 [N, D]; products are cosines."""
    embeds = prompt.inputs_embeds
    return normalize(embeds[sample, positions.to(embeds.device)].float(), dim=-1)


def instruction_positions(prompt: MultimodalPrompt, sample: int) -> Tensor:
    """Positions of a prompt's instruction tokens, int64 [R]."""
    own = prompt.on_host.query[sample].nonzero().flatten()
    (positions,) = to_device([own], prompt.query_mask.device)
    return positions


def places_of(mask: Tensor, samples: Sequence[int]) -> list[Tensor]:
    """Where the tokens of some prompts that a mask marks lie in the B * S tokens of all prompts.

    Args:
        mask: bool [B, S] on the CPU.
        samples: Numbers of the prompts.

    Returns:
        int64 [tokens] for each of them, ascending.
    """
    return [mask[sample].nonzero().flatten() + sample * mask.shape[1] for sample in samples]


@dataclass(frozen=True)
class VisualBatch:
    """Visual tokens of P prompts, padded to N, and their instruction tokens, padded to R.

    Attributes:
        places: int64 [P, N], where each visual token lies in the B * S tokens of all prompts; any
            place on padding.
        lengths: float32 [P, 1], visual tokens of each prompt.
        missing: bool [P, N], True on padding; None if there is none.
        words: int64 [P, R], where each instruction token lies, as `places`.
        unasked: bool [P, R], True on padding of the instruction; None if there is none.
        ranks: int64 [P, 3], of the words of a prompt in ascending order: the two around the middle,
            and the last.
    """

    places: Tensor
    lengths: Tensor
    missing: Tensor | None
    words: Tensor
    unasked: Tensor | None
    ranks: Tensor

    @classmethod
    def of(cls, prompt: MultimodalPrompt, samples: Sequence[int], device: torch.device) -> Self:
        """The tokens of some prompts, found on the host and copied to a device at once."""
        visual, query = (
            places_of(mask, samples) for mask in (prompt.on_host.visual, prompt.on_host.query)
        )
        counts, asked = (torch.tensor([*map(len, own)]) for own in (visual, query))
        places, words = (pad_sequence(own, batch_first=True) for own in (visual, query))
        missing, unasked = past_end([*map(len, visual)]), past_end([*map(len, query)])
        ranks = torch.stack([(asked - 1) // 2, asked // 2, asked - 1], dim=1)  # [P, 3]
        parts = (places, counts.float().unsqueeze(1), missing, words, unasked, ranks)
        moved = to_device(parts, device)
        return cls(
            places=moved[0],
            lengths=moved[1],
            missing=moved[2] if bool(missing.any()) else None,
            words=moved[3],
            unasked=moved[4] if bool(unasked.any()) else None,
            ranks=moved[5],
        )

    def standardized(self, values: Tensor) -> Tensor:
        """Values, [..., P, N], with mean 0 and variance 1 in each prompt; equal ones become 0."""
        centred = values - self._mean(values)
        deviation = self._mean(centred.square()).sqrt()  # [..., P, 1]
        return centred / deviation.clamp(min=torch.finfo(values.dtype).tiny)

    def _mean(self, values: Tensor) -> Tensor:
        if self.missing is None:
            return values.mean(dim=-1, keepdim=True)
        return values.masked_fill(self.missing, 0.0).sum(dim=-1, keepdim=True) / self.lengths

    def add_to(self, scores: Tensor, values: Tensor) -> None:
        """Add values, [P, N], to the scores of their tokens, [B * S]."""
        if self.missing is not None:
            values = values.masked_fill(self.missing, 0.0)
        scores.index_add_(0, self.places.flatten(), values.flatten())


def visual_batches(prompt: MultimodalPrompt, device: torch.device) -> list[VisualBatch]:
    """The prompts that have visual tokens: together, or one by one on a CPU, which saves memory."""
    samples = prompt.on_host.visual.any(dim=1).nonzero().flatten().tolist()
    if not few_launches(device):
        return [VisualBatch.of(prompt, [sample], device) for sample in samples]
    return [VisualBatch.of(prompt, samples, device)] if samples else []
