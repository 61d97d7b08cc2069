"""Classes of Transformers that cannot be compressed, and why."""

from __future__ import annotations

import inspect
from typing import Any

import transformers
from packaging.version import Version

# The forward keyword that takes features of images and videos in place of their pixels.
_SEAM = "mm_encoder_outputs"

_ENCODER_DECODER = "its encoder reads the image, so that the decoder's prompt has no visual tokens"
_CROSS_ATTENTION = (
    "its language model reads images through cross-attention, so that its prompt has no visual "
    "tokens"
)
_OWN_WAY = f"its forward takes image features in another way than {_SEAM}"
_REASONS = {
    "blip": _CROSS_ATTENTION,
    "evolla": _CROSS_ATTENTION,
    "florence2": _ENCODER_DECODER,
    "git": "its images have no placeholders in the prompt",
    "idefics": _CROSS_ATTENTION,
    "kosmos-2": _OWN_WAY,
    "kosmos-2.5": _OWN_WAY,
    "mistral4": "it is a text model",
    "mllama": _CROSS_ATTENTION,
    "pi0": "it turns images into actions of a robot, not into text",
    "pix2struct": _ENCODER_DECODER,
    "pp_formulanet": _ENCODER_DECODER,
    "t5gemma2": _ENCODER_DECODER,
    "udop": _ENCODER_DECODER,
    "vision-encoder-decoder": _ENCODER_DECODER,
}
# These take the features, but not as others do.
_NEEDS_PIXELS = "its forward needs the pixels even where it gets their features"
_UNLIKE = {
    "blip-2": _NEEDS_PIXELS,
    "chameleon": "its language model merges image features itself, and takes one tensor of them",
    "diffusion_gemma": "it fills a canvas of tokens by diffusion, which a prompt only conditions",
    "fuyu": "its forward takes image features as last_hidden_state, not as pooler_output",
    "granite4_vision": "its forward takes image features for single layers, not as pooler_output",
    "inkling_mm_model": "each patch is a visual token, and its inputs do not say where images end",
    "instructblip": _NEEDS_PIXELS,
    "instructblipvideo": _NEEDS_PIXELS,
    "video_llava": "its processor and its forward call the pixels of images differently",
}
# The first version of Transformers in which every forward raises an error.
_BROKEN_SINCE = {"llama4": "5.24.0"}


def why_refused(model_class: Any) -> str | None:
    """Why models of this class cannot be compressed, for the end of a sentence; None if they can.

    Args:
        model_class: A class of Transformers models, or one with remote code.
    """
    model_type = getattr(getattr(model_class, "config_class", None), "model_type", None)
    if _SEAM not in inspect.signature(model_class.forward).parameters:
        return _REASONS.get(
            str(model_type),
            f"its forward does not take {_SEAM}, through which it would get the kept visual tokens",
        )
    if str(model_type) in _UNLIKE:
        return _UNLIKE[str(model_type)]
    broken_since = _BROKEN_SINCE.get(str(model_type))
    if broken_since and Version(transformers.__version__) >= Version(broken_since):
        return f"its own forward fails in Transformers {broken_since}, with or without compression"
    return None
