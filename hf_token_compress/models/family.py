"""A model family: what its parts are called, and where its visual tokens lie."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..prompt import MODALITIES, Modality, VisualLayout
from .offload import own_parameters_loaded
from .visuals import CompressedVisionOutput, EncodedVisuals

Size = tuple[int, ...]
"""The numbers that say how the visual tokens of one image or video lie on it."""

# What configurations call the tokens around an image or a video.
_STRUCTURE_TOKENS = (
    "vision_start_token_id",
    "vision_end_token_id",
    "image_start_token_id",
    "image_end_token_id",
    "video_start_token_id",
    "video_end_token_id",
    "boi_token_id",
    "eoi_token_id",
    "boi_token_index",
    "eoi_token_index",
    "visual_indicator_token_ids",
)


class ModelFamily:
    """How the models of one family encode images and videos, and what their parts are called.

    It holds no state and knows no scorer. As it is, it works for any Transformers class whose
    forward takes `mm_encoder_outputs`. A family of its own overrides what cannot be read off the
    model: `layouts` with `sizes` in most cases, otherwise visual tokens are laid out by
    `{modality}_grid_thw`, or as a square if their number is one, or in one row. `sizes`,
    `placeholders` and `position_ids` get integer inputs, such as ids, masks and grids, on the CPU,
    and return tensors there.

    Attributes:
        pixel_inputs: For each modality, the forward keyword that carries its pixels.
        host_inputs: Inputs that `features` gets on the CPU, because the stock method only reads
            their values.
        numbers_visuals: Whether position ids number the images of the whole prompt, so that those
            of new tokens cannot be computed from the new tokens alone, nor text be moved up.
        renumbers_tokens: Whether the stock `generate` numbers tokens itself, so that kept tokens
            are always numbered 0, 1, 2, …, and text cannot be moved up.
    """

    pixel_inputs: ClassVar[Mapping[Modality, str]] = MappingProxyType(
        {"image": "pixel_values", "video": "pixel_values_videos"}
    )
    host_inputs: ClassVar[tuple[str, ...]] = ()
    numbers_visuals: ClassVar[bool] = False
    renumbers_tokens: ClassVar[bool] = False

    def features(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> EncodedVisuals:
        """Run the vision part once, or read the features in `inputs["mm_encoder_outputs"]`.

        Raises:
            ValueError: `inputs` lacks something that the model needs, or does not fit.
        """
        given = (inputs.get("mm_encoder_outputs") or {}).get(modality)
        if given is not None:
            return EncodedVisuals.from_output(given)
        encode = getattr(model.base_model, f"get_{modality}_features", None)
        if encode is None:
            raise ValueError(
                f"{type(model).__name__} does not encode {modality}s: leave them out of the prompt."
            )
        grid_name = f"{modality}_grid_thw"
        arguments = {}
        for name, parameter in _parameters(encode).items():
            if parameter.default is parameter.empty or name == grid_name:
                needed_input(inputs, name, modality)
            if name in inputs:
                arguments[name] = inputs[name]
        with own_parameters_loaded(model.base_model):
            return EncodedVisuals.from_output(encode(**arguments, return_dict=True))

    def check_patches(self, model: Any, inputs: Mapping[str, Any], modality: Modality) -> None:
        """Raise `ValueError` unless packed patches, float [patches, values], fit their grids."""
        pixel_name, grid_name = self.pixel_inputs[modality], f"{modality}_grid_thw"
        encode = getattr(model.base_model, f"get_{modality}_features", None)
        pixels, grids = inputs.get(pixel_name), inputs.get(grid_name)
        if encode is None or grids is None or grid_name not in _parameters(encode):
            return
        patches = sum(map(math.prod, _grids(grids)))
        if isinstance(pixels, Tensor) and pixels.ndim == 2 and len(pixels) != patches:
            raise ValueError(
                f"{pixel_name} has {len(pixels)} patches, but {grid_name} counts {patches}: "
                "pass both from the same processor call."
            )

    def token_attention(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        modality: Modality,
        received: Sequence[Tensor],
        counts: Sequence[int],
    ) -> list[Tensor]:
        """From attention that patches receive in the vision tower to that of visual tokens.

        As it is, a visual token stands for one patch, or for as many in a row as the processor
        merges.

        Args:
            model: The loaded model.
            inputs: Keyword arguments of the stock forward.
            modality: "image" or "video".
            received: float32 [images or tiles or frames, patches], in the order in which the tower
                computes them.
            counts: Visual tokens of each image or video, by its features.

        Returns:
            float32 [N] of each image or video, zero for tokens on no patch.

        Raises:
            ValueError: The patches of a token are not known.
        """
        patches = torch.cat([own.flatten() for own in received])  # [patches]
        merged = (merge_size(model.config) or 1) ** 2
        # Some towers sort patches into windows first.
        windows = hasattr(getattr(model.config, "vision_config", None), "window_size")
        if windows or len(patches) != merged * sum(counts):
            raise ValueError(
                f"It is not known which of {len(patches)} patches make which of {sum(counts)} "
                f"visual tokens of {type(model).__name__}: override `token_attention` of the "
                "model's family, or choose a scorer that does not need vision_attention."
            )
        return list(patches.view(-1, merged).mean(dim=1).split(list(counts)))

    def vision_output(self, visuals: EncodedVisuals, modality: Modality) -> CompressedVisionOutput:
        """Wrap the kept features, float [K, D] of each image or video, for the stock forward."""
        return visuals.output()

    def sizes(
        self, config: Any, inputs: Mapping[str, Any], modality: Modality, counts: Sequence[int]
    ) -> list[Size]:
        """What `layouts` needs to know of each image or video of a batch.

        Args:
            config: Configuration of the model.
            inputs: Keyword arguments of the stock forward.
            modality: "image" or "video".
            counts: Visual tokens of each image or video, by its features.

        Returns:
            (frames, height, width) in patches where the processor counts them; else (tokens,).

        Raises:
            ValueError: `inputs` lacks the sizes, or they do not fit.
        """
        if merge_size(config) is None:
            return [(count,) for count in counts]
        return _grids(needed_input(inputs, f"{modality}_grid_thw", modality))

    def layouts(self, config: Any, sizes: Sequence[Size], modality: Modality) -> list[VisualLayout]:
        """Where the visual tokens of each image or video lie on it.

        Args:
            config: Configuration of the model.
            sizes: As `sizes` returns them; an engine that never sees the inputs can count them
                itself.
            modality: "image" or "video".
        """
        return [_layout(size, merge_size(config)) for size in sizes]

    def replaced_inputs(self) -> set[str]:
        """Forward keywords that must not come with the features of whole prompts: the pixels."""
        return set(self.pixel_inputs.values())

    def consumed_inputs(self, model: Any) -> set[str]:
        """Forward keywords that the rewritten inputs no longer need: those of the vision part."""
        names = self.replaced_inputs()
        for modality in MODALITIES:
            encode = getattr(model.base_model, f"get_{modality}_features", None)
            if encode is not None:
                names.update(_parameters(encode))
        return names

    def placeholders(self, config: Any, inputs: Mapping[str, Any], modality: Modality) -> Tensor:
        """Bool [B, S], True on the tokens of `input_ids` that each stand for one visual token.

        Raises:
            ValueError: The configuration does not name the placeholder.
        """
        names = (f"{modality}_token_id", f"{modality}_token_index")
        found = (getattr(config, name, None) for name in names)
        token = next((token for token in found if token is not None), None)
        if token is None:
            raise ValueError(
                f"{type(config).__name__} does not name the placeholder of {modality}s "
                f"({names[0]}): mark it in `placeholders` of the model's family."
            )
        mask: Tensor = inputs["input_ids"] == token
        return mask

    def structure_ids(self, model: Any) -> set[int]:
        """Ids that mark structure around visual tokens and never belong to the instruction."""
        return _named_ids([model.config], _STRUCTURE_TOKENS)

    def turn_end_ids(self, model: Any) -> set[int]:
        """Ids that close a turn of a conversation: the end-of-sequence tokens."""
        return _named_ids(_configs(model), ["eos_token_id"])

    def padding_id(self, model: Any) -> int:
        """Id to pad with; it must not be a placeholder."""
        for config in _configs(model):
            pad = getattr(config, "pad_token_id", None)
            if isinstance(pad, int):
                return pad
        return min(self.turn_end_ids(model), default=0)

    def position_ids(self, model: Any, inputs: Mapping[str, Any], attention_mask: Tensor) -> Tensor:
        """Position ids of the whole prompt, as the stock forward would fill them in.

        Returns:
            int64 [A, B, S] or [B, S]. If one of A axes counts plain text order, it comes first.

        Raises:
            ValueError: `inputs` lacks something that the model needs to place visual tokens.
        """
        given: Tensor | None = inputs.get("position_ids")
        if given is None and _has_visual_positions(model):
            given = _visual_position_ids(model, inputs, attention_mask)
        if given is None:
            # The stock forward counts every position, padding too.
            given = torch.arange(attention_mask.shape[1], device=attention_mask.device)[None]
        shared = given.shape == (1, attention_mask.shape[1])
        return given.expand(attention_mask.shape) if shared else given  # [B, S]

    def generation_position_ids(self, model: Any, attention_mask: Tensor) -> Tensor | None:
        """Position ids as the stock `generate` fills them in.

        Args:
            model: The loaded model.
            attention_mask: bool or 0/1 [B, S].

        Returns:
            int64 [A, B, S] or [B, S]; None if they are those of `position_ids`.
        """
        if _has_visual_positions(model):
            return None
        tokens = attention_mask.long()
        return (tokens.cumsum(-1) - 1).masked_fill(tokens == 0, 0)

    def text_order_axis(self, position_ids: Tensor) -> int | None:
        """Axis of `position_ids` that counts plain text order and must have no gaps."""
        # Multimodal rotary positions have three axes: time, height and width.
        return 0 if position_ids.ndim == 3 and position_ids.shape[0] == 4 else None


def is_token(input_ids: Tensor, token_ids: set[int]) -> Tensor:
    """Bool [B, S], True where the id is one of `token_ids`."""
    wanted = torch.tensor(sorted(token_ids), dtype=input_ids.dtype, device=input_ids.device)
    return torch.isin(input_ids, wanted)


def needed_input(inputs: Mapping[str, Any], name: str, modality: Modality) -> Any:
    """An input without which images or videos cannot be read.

    Raises:
        ValueError: It is missing.
    """
    value = inputs.get(name)
    if value is None:
        raise ValueError(
            f"The prompt has {modality}s, but {name} is missing: pass everything that the "
            "processor returned."
        )
    return value


def merge_size(config: Any) -> int | None:
    """Patches that one visual token merges along each side; None if the processor counts none."""
    vision_config = getattr(config, "vision_config", None)
    named = (getattr(vision_config, name, None) for name in ("spatial_merge_size", "merge_size"))
    return next((size for size in named if size is not None), None)


def _configs(model: Any) -> tuple[Any, ...]:
    """Where a model may name its special tokens, in order of precedence."""
    # Some configurations of the whole model have defaults that fit one checkpoint only.
    generation_config = getattr(model, "generation_config", None)
    return generation_config, model.config.get_text_config(), model.config


def _named_ids(configs: Sequence[Any], names: Sequence[str]) -> set[int]:
    """Ids that configurations have under these names, one or several each."""
    ids: set[int] = set()
    for config, name in itertools.product(configs, names):
        found = getattr(config, name, None)
        ids.update([found] if isinstance(found, int) else found or ())
    return ids


def _parameters(method: Any) -> Mapping[str, inspect.Parameter]:
    """Named parameters of a bound method, without `self`."""
    return _without_self(method.__func__)


@functools.cache
def _without_self(function: Any) -> Mapping[str, inspect.Parameter]:
    # Signatures take long to read, and every call asks for several.
    _, *parameters = inspect.signature(function).parameters.items()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return MappingProxyType({name: own for name, own in parameters if own.kind not in variable})


def _grids(grid_thw: Any) -> list[Size]:
    """(frames, height, width) in patches of each image or video."""
    return [tuple(grid) for grid in torch.as_tensor(grid_thw).tolist()]


def _layout(size: Size, merge: int | None) -> VisualLayout:
    if len(size) == 3:
        frames, height, width = size
        merge = merge or 1
        return VisualLayout.row_major(frames, height // merge, width // merge)
    (count,) = size
    side = math.isqrt(count)
    rows = side if side > 0 and side * side == count else 1
    return VisualLayout.row_major(1, rows, count // rows)


def _has_visual_positions(model: Any) -> bool:
    """Whether visual tokens have positions of their own: time, height and width."""
    return hasattr(model.base_model, "compute_3d_position_ids")


def _visual_position_ids(
    model: Any, inputs: Mapping[str, Any], attention_mask: Tensor
) -> Tensor | None:
    """Text order, then the model's own axes, [1 + A, B, S]; None if they are in text order too."""
    # The method leaves an offset on its model, which other threads share: run it on a copy.
    inner = object.__new__(type(model.base_model))
    vars(inner).update(vars(model.base_model))
    parameters = _parameters(inner.compute_3d_position_ids)
    if "mm_token_type_ids" in parameters and inputs.get("mm_token_type_ids") is None:
        raise ValueError(
            "mm_token_type_ids is missing, but the model needs it to place visual tokens: pass "
            "everything that the processor returned."
        )
    arguments = {
        name: inputs.get(name)
        for name, parameter in parameters.items()
        if name in inputs or parameter.default is parameter.empty
    }
    visual: Tensor | None = inner.compute_3d_position_ids(
        **{**arguments, "attention_mask": attention_mask.long()}
    )
    if visual is None or visual.shape[0] != 3:
        return visual
    text = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)  # [B, S]
    return torch.cat([text[None], visual.to(text)], dim=0)  # [4, B, S]
