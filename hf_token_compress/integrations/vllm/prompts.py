"""What a worker must know of a prompt to score one of its images: a record that travels with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...config import InstructionScope, TokenCompressionConfig
from ...models.family import ModelFamily, Size, is_token
from ...prompt import (
    HostMasks,
    Modality,
    MultimodalPrompt,
    VisualLayout,
    VisualSpan,
    find_instruction_tokens,
)


@dataclass(frozen=True)
class PromptVisual:
    """An image or video of a prompt.

    Attributes:
        modality: "image" or "video".
        place: Where its only placeholder stands in the prompt as it was sent.
        size: As `ModelFamily.layouts` takes it.
        seconds_per_grid: Seconds between the frames of its grid, where a model wants them.
    """

    modality: Modality
    place: int
    size: Size
    seconds_per_grid: float | None = None


@dataclass(frozen=True)
class VisualRecord:
    """An image or video, and the whole prompt that it belongs to.

    Attributes:
        prompt_ids: The prompt as it was sent, with one placeholder for each image or video.
        visuals: Its images and videos in order of appearance.
        number: Which of them this record is of.
        setting: The setting of the request, as `TokenCompressionConfig.to_dict` writes it.
        kept: How many of its tokens stay.
    """

    prompt_ids: tuple[int, ...]
    visuals: tuple[PromptVisual, ...]
    number: int
    setting: dict[str, Any]
    kept: int

    def to_tensor(self) -> Tensor:
        """The record as JSON, uint8 [bytes]."""
        text = json.dumps(dataclasses.asdict(self), separators=(",", ":"), sort_keys=True)
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> VisualRecord:
        """Read what `to_tensor` wrote."""
        values = json.loads(tensor.cpu().numpy().tobytes())
        visuals = tuple(
            PromptVisual(**{**own, "size": tuple(own["size"])}) for own in values["visuals"]
        )
        return cls(**{**values, "prompt_ids": tuple(values["prompt_ids"]), "visuals": visuals})

    @property
    def visual(self) -> PromptVisual:
        """The image or video that this record is of."""
        return self.visuals[self.number]

    @property
    def config(self) -> TokenCompressionConfig:
        """The setting of the request."""
        return TokenCompressionConfig.from_dict(self.setting)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of tokens that are no question.

    Attributes:
        structure: Those that only mark structure.
        turn_ends: Those that close a turn.
    """

    structure: set[int]
    turn_ends: set[int]

    @classmethod
    def of(cls, family: ModelFamily, model_config: Any) -> SpecialTokens:
        """Those of a model, from vLLM's configuration of it."""
        generation = SimpleNamespace(**model_config.try_get_generation_config())
        # Where a family looks for them.
        model = SimpleNamespace(config=model_config.hf_config, generation_config=generation)
        return cls(family.structure_ids(model), family.turn_end_ids(model))


@dataclass(frozen=True)
class WholePrompt:
    """A prompt of S tokens, with all its visual tokens.

    Attributes:
        input_ids: int64 [S].
        spans: Its images and videos in order of appearance.
    """

    input_ids: Tensor
    spans: tuple[VisualSpan, ...]

    @classmethod
    def of(
        cls,
        family: ModelFamily,
        hf_config: Any,
        prompt_ids: Sequence[int],
        visuals: Sequence[PromptVisual],
    ) -> WholePrompt:
        """The prompt that a record describes, for a model's family and configuration."""
        ids: list[int] = []
        spans = []
        end = 0
        for visual in visuals:
            (layout,) = family.layouts(hf_config, [visual.size], visual.modality)
            ids += prompt_ids[end : visual.place]
            spans.append(span_of(layout, visual.modality, start=len(ids)))
            ids += [prompt_ids[visual.place]] * layout.count
            end = visual.place + 1
        ids += prompt_ids[end:]
        return cls(torch.tensor(ids), tuple(spans))

    def of_visual(
        self,
        number: int,
        position_ids: Tensor,
        instruction: Tensor,
        embed: Callable[[Tensor, Tensor], Tensor],
        device: torch.device,
    ) -> MultimodalPrompt:
        """The prompt as if it had only one of its images or videos, which keeps its place.

        vLLM encodes each by itself, and may not have the others.

        Args:
            number: Which image or video.
            position_ids: int64 [A, S] or [S].
            instruction: bool [S], as `instruction_mask` marks it.
            embed: Computes float [R, D] from ids, int64 [R], and a mask, bool [R], of the visual
                tokens.
            device: Where the prompt lies.
        """
        others = torch.zeros_like(instruction)
        for span in self.spans[:number] + self.spans[number + 1 :]:
            others[span.positions] = True
        present = (~others).nonzero().flatten()  # [R]
        own = self.spans[number]
        visual = torch.isin(present, own.positions)  # [R]
        input_ids = self.input_ids[present].to(device)  # [R]
        visual_mask = visual.to(device)
        asking = instruction[present]  # [R]
        prompt = MultimodalPrompt(
            input_ids=input_ids[None],
            position_ids=position_ids[..., present].unsqueeze(-2).to(device),  # [A, 1, R], [1, R]
            attention_mask=torch.ones_like(visual_mask)[None],
            visual_mask=visual_mask[None],
            instruction_mask=asking.to(device)[None],
            visuals=((dataclasses.replace(own, positions=visual.nonzero().flatten()),),),
            embed=lambda: embed(input_ids, visual_mask)[None],
        )
        everything = torch.ones_like(visual)
        return prompt.known_on_host(HostMasks(everything[None], visual[None], asking[None]))

    def instruction_mask(self, special: SpecialTokens, scope: InstructionScope) -> Tensor:
        """The instruction tokens, bool [S]."""
        input_ids = self.input_ids[None]  # [1, S]
        visual = torch.zeros_like(input_ids, dtype=torch.bool)
        for span in self.spans:
            visual[0, span.positions] = True
        turn_ends = is_token(input_ids, special.turn_ends) & ~visual
        text = ~visual & ~turn_ends & ~is_token(input_ids, special.structure)
        mask, _ = find_instruction_tokens(text, visual, turn_ends, scope)
        return mask[0]


def span_of(layout: VisualLayout, modality: Modality, start: int = 0) -> VisualSpan:
    """An image or video whose tokens begin at a position."""
    positions = torch.arange(start, start + layout.count)
    return VisualSpan(modality, positions, layout.grids)


def kept_prompt_positions(
    whole: Tensor, delta: int, spans: Sequence[VisualSpan], kept: Sequence[int], length: int
) -> tuple[Tensor, int]:
    """Position ids of a prompt that keeps some of its visual tokens, before it is known which.

    Text has its positions in the whole prompt. Visual tokens have those of the first tokens of
    their image or video, which stand in until the kept ones are known.

    Args:
        whole: int64 [A, S], position ids of the whole prompt.
        delta: What the position after the whole prompt is more than its length.
        spans: Its images and videos in order of appearance.
        kept: How many tokens each of them keeps.
        length: Tokens of the shorter prompt, K, or of more than it.

    Returns:
        int64 [A, length], and what the position after it is more than its length.
    """
    present = torch.ones(whole.shape[1], dtype=torch.bool)
    for span, count in zip(spans, kept, strict=True):
        present[span.positions[count:]] = False
    positions = whole[:, present]  # [A, K]
    following = delta + whole.shape[1]
    further = torch.arange(following, following + length - positions.shape[1])
    positions = torch.cat([positions, further.expand(len(whole), -1)], dim=1)  # [A, length]
    return positions, following - int(present.sum())
