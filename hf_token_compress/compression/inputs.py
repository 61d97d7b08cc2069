"""Read the inputs of a stock forward: run the vision part, and find the visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..device_copy import to_device
from ..models.family import ModelFamily
from ..models.visuals import CompressedVisionOutput, EncodedVisuals
from ..prompt import (
    MODALITIES,
    HostMasks,
    Modality,
    MultimodalPrompt,
    QueryTokens,
    VisualLayout,
    VisualSpan,
    find_visual_spans,
)
from .host import on_host, to_host
from .precision import host_by_default
from .stopwatch import Stopwatch
from .vision_attention import features_with_attention

_PACKING_INPUTS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
"""What collators of padding-free batches add, to say where sequences begin in a row."""


TOKEN_TYPES = ("mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids")
"""Inputs of the stock forward that give each token a type, 0 for text and padding."""


PlacedVisuals = tuple[Tensor, Mapping[Modality, Tensor]]
"""Bool [B, S], True on visual tokens; and their places in the batch by modality, int64 [N]."""


@dataclass(frozen=True)
class HostTokens:
    """The tokens of B prompts on the CPU.

    Attributes:
        input_ids: int64 [B, S].
        attention_mask: bool [B, S].
        visual_mask: bool [B, S], True on visual tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    visual_mask: Tensor


@dataclass(frozen=True)
class PromptLayout:
    """A batch of B prompts of S tokens, with the vision part already run.

    Attributes:
        input_ids: int64 [B, S].
        attention_mask: bool [B, S].
        position_ids: int64 [A, B, S] or [B, S].
        encoded: Features of each modality that is present.
        spans: For each modality, for each prompt, its images or videos in order.
        vision: Measured the vision part, unless the caller passed features.
        attention: Measured what `received` costs, which is part of `vision`.
        received: Attention that the visual tokens of each modality receive in the vision tower,
            float32 [N] of each image or video; empty unless it was asked for.
        tokens_before: Tokens of the caller's sequence before the prompts.
        known: What is known of the tokens on the CPU.
        placed: Where the visual tokens lie, if that is on the device of the ids already.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    encoded: dict[Modality, EncodedVisuals]
    spans: dict[Modality, tuple[tuple[VisualSpan, ...], ...]]
    vision: Stopwatch
    attention: Stopwatch
    received: dict[Modality, list[Tensor]] = field(default_factory=dict)
    tokens_before: int = 0
    known: HostTokens | None = None
    placed: PlacedVisuals | None = None

    @cached_property
    def on_host(self) -> HostTokens:
        """The tokens on the CPU, where the host reads them without waiting."""
        if self.known is not None:
            return self.known
        input_ids, attention_mask = to_host([self.input_ids, self.attention_mask])
        visual_mask, _ = place_visuals(self.spans, input_ids.shape)
        return HostTokens(input_ids, attention_mask, visual_mask)

    @property
    def vision_ms(self) -> float:
        """Milliseconds of the vision part; zero if the caller passed features."""
        return self.vision.milliseconds - self.attention.milliseconds

    @cached_property
    def visuals(self) -> tuple[tuple[VisualSpan, ...], ...]:
        """For each prompt, images and videos together, in order of appearance."""
        return tuple(
            tuple(
                sorted(
                    (span for own in spans for span in own if len(span.positions) > 0),
                    key=lambda span: int(span.positions[0]),
                )
            )
            for spans in zip(*self.spans.values(), strict=True)
        )

    def encoded_of(self, samples: Sequence[int]) -> dict[Modality, EncodedVisuals]:
        """Features of the given samples in the given order; a sample may occur several times."""
        encoded = {}
        for modality, all_spans in self.spans.items():
            numbers = iter(range(len(self.encoded[modality].features)))
            by_sample = [[next(numbers) for _ in own] for own in all_spans]
            if picked := [number for sample in samples for number in by_sample[sample]]:
                encoded[modality] = self.encoded[modality].take(picked)
        return encoded

    @cached_property
    def _on_device(self) -> PlacedVisuals:
        """Where the visual tokens lie, on the device of the ids."""
        if self.placed is not None:
            return self.placed
        mask, places = place_visuals(self.spans, self.input_ids.shape)
        mask, *moved = to_device([mask, *places.values()], self.input_ids.device)
        return mask, dict(zip(places, moved, strict=True))

    def visual_mask(self) -> Tensor:
        """Bool [B, S], True on visual tokens."""
        return self._on_device[0]

    def of_visual_tokens(self, values: Tensor, modality: Modality) -> Tensor:
        """Values [B, S] at the visual tokens of a modality, [N of all], in the order of prompts."""
        return values.flatten().index_select(0, self._on_device[1][modality])

    def run_starts(self) -> Tensor:
        """Bool [B, S], True on visual tokens that follow text or begin an image or video."""
        mask = torch.zeros(self.input_ids.shape, dtype=torch.bool)
        for sample, spans in enumerate(self.visuals):
            for span in spans:
                gaps = span.positions.diff() != 1  # [N - 1]
                mask[sample, span.positions[:1]] = True
                mask[sample, span.positions[1:][gaps]] = True
        (there,) = to_device([mask], self.input_ids.device)
        return there

    def with_features(self, word_embeddings: Tensor) -> Tensor:
        """Visual features in place of the word embeddings, [B, S, D], of their placeholders."""
        for modality in self.spans:
            self._place(self.encoded[modality].features, modality, word_embeddings)
        return word_embeddings

    def vision_attention(self) -> Tensor:
        """Attention that visual tokens receive in the vision tower, float32 [B, S]; zero elsewhere.

        Raises:
            ValueError: The tower did not run, because the caller passed its features.
        """
        mask = self.attention_mask
        placed = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
        for modality in self.spans:
            if modality not in self.received:
                raise ValueError(
                    f"The scorer needs the attention of the vision tower, but the {modality}s come "
                    "as features in mm_encoder_outputs: pass their pixels, or choose a scorer that "
                    "does not need vision_attention."
                )
            self._place(self.received[modality], modality, placed)
        return placed

    def _place(self, of_visuals: Sequence[Tensor], modality: Modality, values: Tensor) -> None:
        """Write [N, ...] of each image or video to the positions of its tokens, in [B, S, ...]."""
        if not of_visuals:
            return
        joined = of_visuals[0] if len(of_visuals) == 1 else torch.cat(list(of_visuals))
        places = self._on_device[1][modality].to(values.device)
        values.flatten(0, 1).index_copy_(0, places, joined.to(values))

    def prompt(self, instruction_mask: Tensor, embed: Callable[[], Tensor]) -> MultimodalPrompt:
        """What a scorer sees.

        Args:
            instruction_mask: bool [B, S] on the CPU.
            embed: Computes the decoder's input, float [B, S, D].
        """
        masks = HostMasks(self.on_host.attention_mask, self.on_host.visual_mask, instruction_mask)
        device, queries = self.input_ids.device, QueryTokens.of(masks.query)
        instruction, query, sample, position = to_device(
            [instruction_mask, masks.query, queries.sample, queries.position], device
        )
        attention, visual = self.attention_mask, self.visual_mask()
        if device.type == "cpu":
            # A scorer that writes to its masks must not change the layout or the caller's mask.
            attention, visual = attention.clone(), visual.clone()
        prompt = MultimodalPrompt(
            input_ids=self.input_ids,
            embed=embed,
            position_ids=self.position_ids,
            attention_mask=attention,
            visual_mask=visual,
            instruction_mask=instruction,
            visuals=self.visuals,
        )
        return prompt.known_on_host(
            masks, query, replace(queries, sample=sample, position=position)
        )


def batch_size(inputs: Mapping[str, Any]) -> int | None:
    """Samples of a batch; None if it has neither ids [B, S] nor embeddings [B, S, D]."""
    for name in ("input_ids", "inputs_embeds"):
        if isinstance(given := inputs.get(name), Tensor) and given.ndim > 1:
            return len(given)
    return None


def present_modalities(family: ModelFamily, inputs: Mapping[str, Any]) -> tuple[Modality, ...]:
    """Modalities whose pixels, or features that are not yet compressed, are in `inputs`.

    Raises:
        TypeError: `mm_encoder_outputs` is not a mapping.
    """
    encoded = _given_features(inputs)
    found: list[Modality] = []
    for modality in MODALITIES:
        features = encoded.get(modality)
        has_pixels = inputs.get(family.pixel_inputs.get(modality, "")) is not None
        has_features = features is not None and not isinstance(features, CompressedVisionOutput)
        if has_pixels or has_features:
            found.append(modality)
    return tuple(found)


def is_shortened(inputs: Mapping[str, Any]) -> bool:
    """Whether the inputs are those that a compressed model hands to the stock class."""
    return any(isinstance(own, CompressedVisionOutput) for own in _given_features(inputs).values())


def refuse_visual_prompts(model: Any, family: ModelFamily, arguments: Mapping[str, Any]) -> None:
    """Raise where the arguments of the stock `generate_batch` hold images or videos.

    Continuous batching knows token ids alone: it would answer from the bare placeholders.
    """
    found = list(present_modalities(family, arguments))
    for ids in arguments.get("inputs") or ():
        row = torch.as_tensor(ids).view(1, -1)  # [1, S]
        prompt = {"input_ids": row}
        found += placeholder_modalities(model, family, prompt)
    if found:
        raise ValueError(
            f"generate_batch takes token ids alone, which leaves the {found[0]}s out: answer "
            "prompts with images or videos with generate."
        )


def refuse_unread_visuals(model: Any, family: ModelFamily, inputs: Mapping[str, Any]) -> None:
    """Raise where a whole prompt has placeholders, but no pixels or features that are known.

    The stock forward may know pixels by other names, and would run uncompressed.
    """
    if inputs.get("mm_encoder_outputs"):
        return
    for modality in placeholder_modalities(model, family, inputs):
        raise ValueError(
            f"The prompt has {modality} placeholders, but no {family.pixel_inputs[modality]}: "
            "pass everything that the processor returned, and register a family with its own "
            "`pixel_inputs` if its pixels have another name."
        )


def is_placeholder(
    model: Any, family: ModelFamily, inputs: Mapping[str, Any], modality: Modality
) -> Tensor:
    """As `family.placeholders`; all False if the model has no such placeholder."""
    try:
        return family.placeholders(model.config, inputs, modality)
    except ValueError:
        return torch.zeros_like(inputs["input_ids"], dtype=torch.bool)


def placeholder_modalities(
    model: Any, family: ModelFamily, inputs: Mapping[str, Any]
) -> list[Modality]:
    """Modalities that have placeholders among `input_ids`."""
    return [own for own in MODALITIES if is_placeholder(model, family, inputs, own).any()]


@host_by_default()
def read_layout(
    model: Any,
    family: ModelFamily,
    inputs: Mapping[str, Any],
    *,
    host: Mapping[str, Any] | None = None,
    vision_attention: bool = False,
    earlier: Mapping[str, Tensor] | None = None,
) -> PromptLayout:
    """Run the vision part once, and find the visual tokens and the position ids of a batch.

    Args:
        model: The loaded model.
        family: Its family.
        inputs: Keyword arguments of its stock forward.
        host: What `on_host` makes of them, if it was called.
        vision_attention: Read the attention of the vision tower, if it runs.
        earlier: Ids and token types of tokens before the prompts, int64 [B, C]. Images and videos
            of these tokens are left out if they are among the inputs.

    Raises:
        TypeError: `input_ids` or `attention_mask` is not a tensor, or `mm_encoder_outputs` is not
            a mapping.
        ValueError: An input is missing or does not fit the others, or prompts are packed.
    """
    # The vision part is not queued yet, so nothing waits for it here.
    host = on_host(inputs) if host is None else host
    # 1. Encode the images and videos, unless the caller passed their features.
    given = _given_features(inputs)
    seen = {**inputs, **{name: host[name] for name in family.host_inputs if name in host}}
    vision, attention = Stopwatch(model.device), Stopwatch(model.device)
    encoded, layouts = {}, {}
    received: dict[Modality, list[Tensor]] = {}
    for modality in present_modalities(family, inputs):
        tower_runs = given.get(modality) is None
        patches: list[Tensor] = []
        if tower_runs:
            family.check_patches(model, host, modality)
        with vision.running() if tower_runs else nullcontext():
            if tower_runs and vision_attention:
                visuals, patches = features_with_attention(model, family, seen, modality, attention)
            else:
                visuals = family.features(model, seen, modality)
        encoded[modality] = visuals
        counts = [len(features) for features in visuals.features]
        sizes = family.sizes(model.config, host, modality, counts)
        layouts[modality] = family.layouts(model.config, sizes, modality)
        _check_counts(counts, layouts[modality], modality)
        if patches:
            received[modality] = family.token_attention(model, host, modality, patches, counts)
    # 2. Find their placeholders.
    input_ids, attention_mask = _checked_sequence(host)
    spans = {}
    for modality, own_layouts in layouts.items():
        placeholders = family.placeholders(model.config, host, modality)
        if (placeholders & ~attention_mask).any():
            raise ValueError(
                f"attention_mask hides {modality} placeholders: pass the attention_mask that the "
                "processor returned, which hides padding only."
            )
        if earlier and sum(layout.count for layout in own_layouts) != int(placeholders.sum()):
            before = family.placeholders(model.config, on_host(earlier), modality)
            numbers = _numbers_after(before, placeholders, own_layouts, modality)
            host = _of_numbers(host, modality, numbers)
            encoded[modality] = encoded[modality].take(numbers)
            own_layouts = [own_layouts[number] for number in numbers]
            if modality in received:
                received[modality] = [received[modality][number] for number in numbers]
        spans[modality] = find_visual_spans(placeholders, own_layouts, modality)
    # 3. Find the position ids.
    position_ids = family.position_ids(model, host, attention_mask)
    if position_ids.shape[-2:] != input_ids.shape:
        raise ValueError(
            f"position_ids must end in the shape of input_ids, {list(input_ids.shape)}, but have "
            f"the shape {list(position_ids.shape)}."
        )
    if host.get("position_ids") is not None:
        _check_not_packed(family, position_ids, attention_mask, host.get("attention_mask"))
    visual, places = place_visuals(spans, input_ids.shape)
    mask_there, positions_there, visual_there, *places_there = to_device(
        [attention_mask, position_ids, visual, *places.values()], inputs["input_ids"].device
    )
    return PromptLayout(
        inputs["input_ids"],
        mask_there,
        positions_there,
        encoded,
        spans,
        vision,
        attention,
        received=received,
        tokens_before=earlier["input_ids"].shape[1] if earlier else 0,
        known=HostTokens(input_ids, attention_mask, visual),
        placed=(visual_there, dict(zip(places, places_there, strict=True))),
    )


def place_visuals(
    spans: Mapping[Modality, Sequence[Sequence[VisualSpan]]], shape: torch.Size
) -> PlacedVisuals:
    """Where the visual tokens of prompts [B, S] lie, on the CPU."""
    mask, places = torch.zeros(shape, dtype=torch.bool), {}
    for modality, by_sample in spans.items():
        own = [torch.empty(0, dtype=torch.long)]
        for sample, of_sample in enumerate(by_sample):
            own += [span.positions + sample * shape[1] for span in of_sample]
        places[modality] = torch.cat(own)
        mask.view(-1)[places[modality]] = True
    return mask, places


def _numbers_after(
    before: Tensor, placeholders: Tensor, layouts: Sequence[VisualLayout], modality: Modality
) -> list[int]:
    """Which images or videos have their placeholders, bool [B, S], after others, bool [B, C].

    Raises:
        ValueError: They are neither all of them nor those of the new tokens.
    """
    whole = torch.cat([before, placeholders], dim=1)  # [B, C + S]
    numbers: list[int] | None = None
    if sum(layout.count for layout in layouts) == int(whole.sum()):
        spans = sum(find_visual_spans(whole, layouts, modality), ())
        is_new = [span.positions >= before.shape[1] for span in spans]  # [N] each
        if all(bool(new.all()) or not bool(new.any()) for new in is_new):
            numbers = [number for number, new in enumerate(is_new) if bool(new.any())]
    if numbers is None:
        raise ValueError(
            f"The {modality}s fit neither all {modality} placeholders nor those after the tokens "
            "in the cache: pass input_ids that begin with the sequence that the cache holds, and "
            f"the {modality}s of the whole sequence or of its new tokens."
        )
    return numbers


def _of_numbers(
    inputs: Mapping[str, Any], modality: Modality, numbers: Sequence[int]
) -> dict[str, Any]:
    """The inputs, with those that place images or videos only for these numbers."""
    names = [f"{modality}_grid_thw", *(["second_per_grid_ts"] if modality == "video" else [])]
    own = {name: inputs[name] for name in names if inputs.get(name) is not None}
    return {**inputs, **{name: torch.as_tensor(value)[numbers] for name, value in own.items()}}


def check_shape(name: str, tensor: object, input_ids: Tensor) -> None:
    """Raise unless an input has one entry per token."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} must be a tensor of the shape of input_ids, not {type(tensor).__name__}."
        )
    if tensor.shape != input_ids.shape:
        raise ValueError(
            f"{name} must have the shape of input_ids, {list(input_ids.shape)}, but has "
            f"{list(tensor.shape)}."
        )


def _check_counts(
    counts: Sequence[int], layouts: Sequence[VisualLayout], modality: Modality
) -> None:
    if len(counts) != len(layouts):
        raise ValueError(
            f"There are features of {len(counts)} {modality}s, but grids of {len(layouts)}: pass "
            "both from the same processor call."
        )
    for number, (count, layout) in enumerate(zip(counts, layouts, strict=True)):
        if count != layout.count:
            shapes = " and ".join(" x ".join(map(str, grid.shape)) for grid in layout.grids)
            raise ValueError(
                f"{modality} {number} has {count} features, but its grid of {shapes} needs "
                f"{layout.count}: pass the features of the same processor call."
            )


def _checked_sequence(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    input_ids = inputs.get("input_ids")
    if input_ids is None or inputs.get("inputs_embeds") is not None:
        raise ValueError(
            "Token compression finds visual tokens by their placeholders: pass input_ids, not "
            "inputs_embeds (as PEFT's prompt tuning does), with the images and videos."
        )
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2:
        raise TypeError("input_ids must be a 2-D tensor [batch, length].")
    for name in _PACKING_INPUTS:
        if inputs.get(name) is not None:
            raise _packed(f"{name} marks where sequences begin")
    for name in TOKEN_TYPES:
        if inputs.get(name) is not None:
            check_shape(name, inputs[name], input_ids)
    attention_mask = inputs.get("attention_mask")
    if attention_mask is None:
        return input_ids, torch.ones_like(input_ids, dtype=torch.bool)
    check_shape("attention_mask", attention_mask, input_ids)
    if attention_mask.dtype != torch.bool and (attention_mask > 1).any():
        raise _packed("attention_mask numbers the sequences of a row")
    return input_ids, attention_mask.bool()


def _check_not_packed(
    family: ModelFamily, position_ids: Tensor, attention_mask: Tensor, given_mask: Tensor | None
) -> None:
    """Raise where position ids say that a sample holds several sequences.

    Transformers reads gaps in text order as borders between sequences, in some places only if there
    is no attention mask.
    """
    axis = family.text_order_axis(position_ids)
    in_text_order = axis is not None or position_ids.ndim == 2
    gaps_are_borders = axis is not None or given_mask is None
    text = position_ids if axis is None else position_ids[axis]
    for sample, mask in enumerate(attention_mask):
        own = text[..., sample, mask]  # [A, present] or [present]
        if in_text_order:
            step = own.diff()
            packed = (step != 1).any() if gaps_are_borders else (step < 0).any()
        else:
            # Axes fall inside an image too, but never all of them to where the prompt begins.
            furthest = own.amax(dim=0)  # [present]
            packed = (furthest[1:] <= own.amin(dim=0)[:1]).any()
        if packed:
            raise _packed(f"The position_ids of prompt {sample} have gaps or restart")


def _packed(sign: str) -> ValueError:
    return ValueError(
        f"{sign}, as in packed sequences: token compression takes one sequence per row, so pad the "
        "prompts instead of packing them."
    )


def _given_features(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Features by modality; empty if the caller passed none."""
    given = inputs.get("mm_encoder_outputs")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            "mm_encoder_outputs must be a mapping from 'image' or 'video' to the output of the "
            f"vision part, not {type(given).__name__}."
        )
    return given
