"""Model families by `config.model_type`: one line each."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..registry import Registry

if TYPE_CHECKING:
    from .family import ModelFamily

FAMILIES: Registry[ModelFamily] = Registry(
    "family",
    f"{__package__}.family:ModelFamily",
    {
        "aria": f"{__package__}.resampled:ResampledFamily",
        "aya_vision": f"{__package__}.tiles:TiledFamily",
        "cohere2_vision": f"{__package__}.tiles:TiledFamily",
        "deepseek_vl": f"{__package__}.family:ModelFamily",
        "deepseek_vl_hybrid": f"{__package__}.family:ModelFamily",
        "gemma3": f"{__package__}.tiles:TiledFamily",
        "gemma4": f"{__package__}.gemma4:Gemma4Family",
        "glm4v": f"{__package__}.glm4v:Glm4vFamily",
        "got_ocr2": f"{__package__}.family:ModelFamily",
        "idefics2": f"{__package__}.resampled:Idefics2Family",
        "idefics3": f"{__package__}.tiles:JoinedTilesFamily",
        "internvl": f"{__package__}.tiles:TiledFamily",
        "janus": f"{__package__}.family:ModelFamily",
        "kimi_k25": f"{__package__}.kimi_k25:KimiK25Family",
        "lfm2_vl": f"{__package__}.lfm2_vl:Lfm2VlFamily",
        "llava": f"{__package__}.llava:LlavaFamily",
        "llava_next": f"{__package__}.llava_next:LlavaNextFamily",
        "llava_next_video": f"{__package__}.llava_next:LlavaNextFamily",
        "llava_onevision": f"{__package__}.llava_onevision:LlavaOnevisionFamily",
        "mistral3": f"{__package__}.mistral3:Mistral3Family",
        "ovis2": f"{__package__}.tiles:TiledFamily",
        "paligemma": f"{__package__}.paligemma:PaliGemmaFamily",
        "perception_lm": f"{__package__}.perception_lm:PerceptionLMFamily",
        "qianfan_ocr": f"{__package__}.tiles:TiledFamily",
        "qwen2_5_vl": f"{__package__}.family:ModelFamily",
        "qwen2_vl": f"{__package__}.family:ModelFamily",
        "qwen3_vl": f"{__package__}.family:ModelFamily",
        "smolvlm": f"{__package__}.tiles:JoinedTilesFamily",
        "video_llama_3": f"{__package__}.video_llama_3:VideoLlama3Family",
        "vila15": f"{__package__}.vila.family:VilaFamily",
        "vipllava": f"{__package__}.family:ModelFamily",
    },
)

# The forward keyword that takes features of images and videos in place of their pixels.
_SEAM = "mm_encoder_outputs"


def supported_families() -> tuple[str, ...]:
    """The `model_type`s that can be compressed, sorted."""
    return FAMILIES.names()


def register_family(model_type: str, family: type[ModelFamily]) -> None:
    """Let models with that `config.model_type` be compressed.

    Raises:
        TypeError: `family` is not a subclass of `ModelFamily`.
        ValueError: That family is supported already.
    """
    FAMILIES.register(model_type, family)


def model_family(model_class: Any) -> ModelFamily:
    """The family for a class of Transformers models.

    Raises:
        ValueError: The family, or this class of it, is not supported.
    """
    config_class = getattr(model_class, "config_class", None)
    model_type = getattr(config_class, "model_type", None)
    family_class = FAMILIES.find(model_type) if model_type else None
    if family_class is None:
        raise ValueError(
            f"Token compression does not support {model_class.__name__} (model type "
            f"{model_type!r}): supported model types are {', '.join(supported_families())}."
        )
    if _SEAM not in inspect.signature(model_class.forward).parameters:
        raise ValueError(
            f"Token compression does not support {model_class.__name__}: its forward does not take "
            f"{_SEAM}, through which it would get the kept visual tokens."
        )
    return family_class()
