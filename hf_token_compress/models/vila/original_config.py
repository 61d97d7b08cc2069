"""Read the root config of a published VILA1.5 checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .names import MODEL_TYPE, ORIGINAL_MODEL_TYPE

# Older configs describe a LLaMA's rotary embedding by these, not by rope_parameters.
_LEGACY_ROTARY_SETTINGS = {"rope_theta", "rope_scaling"}


def convert_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a `VilaConfig` from a published root config.json.

    The published models have no placeholder ids, so two are appended to the vocabulary.

    Raises:
        NotImplementedError: This kind of checkpoint is not supported, such as one whose vision
            tower is not SigLIP.
        ValueError: It is not a VILA1.5 checkpoint, or its S2 scales do not fit its tower.
    """
    parts = {name: settings.get(f"{name}_cfg") for name in ("llm", "vision_tower", "mm_projector")}
    missing = sorted(name for name, part in parts.items() if not isinstance(part, Mapping))
    if missing:
        raise ValueError(
            f"This checkpoint of model type {ORIGINAL_MODEL_TYPE!r} is not a VILA1.5: its "
            f"config.json does not describe {' and '.join(missing)}."
        )
    llm, vision, projector = (dict(part or {}) for part in parts.values())
    _refuse_unsupported(settings, vision)
    first_placeholder = llm["vocab_size"]
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["VilaForConditionalGeneration"],
        "dtype": _dtype(settings, llm),
        "vision_config": {**_architecture(vision), "vision_use_head": False},
        "text_config": {**_architecture(llm), "vocab_size": first_placeholder + 2},
        "tie_word_embeddings": bool(llm.get("tie_word_embeddings", False)),
        "image_token_index": first_placeholder,
        "video_token_index": first_placeholder + 1,
        "vision_feature_layer": settings.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "full",
        "projector_type": projector.get("mm_projector_type"),
        "s2_scales": _s2_scales(settings, vision),
        "num_video_frames": settings.get("num_video_frames", 8),
    }


def _refuse_unsupported(settings: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    tower = " ".join([vision.get("model_type", ""), *(vision.get("architectures") or [])])
    if "intern" in tower.lower():
        raise NotImplementedError(
            "The vision tower InternViT (VILA1.5-40b) is not supported: use a VILA1.5 with a "
            "SigLIP tower, such as VILA1.5-3b, VILA1.5-13b or Llama-3-VILA1.5-8B."
        )
    if vision.get("model_type") != "siglip_vision_model":
        raise NotImplementedError(
            f"The vision tower {vision.get('model_type')!r} is not supported: use a VILA1.5 with "
            "a SigLIP tower."
        )
    feature = settings.get("mm_vision_select_feature", "patch")
    if feature != "cls_patch":
        raise NotImplementedError(
            f"mm_vision_select_feature={feature!r} is not supported: it would drop the first "
            "patch of a SigLIP tower, which has no class token."
        )
    if settings.get("image_aspect_ratio") not in (None, "resize", "square"):
        raise NotImplementedError(
            f"image_aspect_ratio={settings['image_aspect_ratio']!r} is not supported: VILA1.5 "
            "resizes images ('resize')."
        )
    if settings.get("vision_resolution", -1) not in (-1, vision.get("image_size")):
        raise NotImplementedError(
            f"vision_resolution={settings['vision_resolution']} is not supported: the vision tower "
            f"was saved for {vision.get('image_size')} pixels."
        )
    if settings.get("mm_use_im_start_end") or settings.get("mm_use_im_patch_token"):
        raise NotImplementedError(
            "mm_use_im_start_end and mm_use_im_patch_token are not supported: VILA1.5 has neither."
        )


def _architecture(part: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the network, without the generation settings of old configs."""
    config_class = CONFIG_MAPPING[part["model_type"]]
    own = {field.name for field in dataclasses.fields(config_class)}
    own -= {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own |= {"model_type", *_LEGACY_ROTARY_SETTINGS}
    return {name: value for name, value in part.items() if name in own and value is not None}


def _dtype(settings: Mapping[str, Any], llm: Mapping[str, Any]) -> str | None:
    name = settings.get("model_dtype") or settings.get("torch_dtype") or llm.get("torch_dtype")
    return None if name is None else str(name).removeprefix("torch.")


def _s2_scales(settings: Mapping[str, Any], vision: Mapping[str, Any]) -> list[int] | None:
    if not settings.get("s2"):
        return None
    scales = sorted(int(scale) for scale in settings["s2_scales"].split(","))
    if settings.get("s2_resize_output_to_scale_idx", 0) != 0:
        raise NotImplementedError(
            "s2_resize_output_to_scale_idx is not supported: VILA1.5 resizes to its smallest scale."
        )
    side = vision["image_size"]
    for scale in scales:
        splits = -(-scale // settings["s2_max_split_size"])
        if scale != splits * side:
            raise ValueError(
                f"The S2 scale {scale} is cut into {splits} x {splits} tiles, whose side is not "
                f"the vision tower's image_size {side}."
            )
    return scales
