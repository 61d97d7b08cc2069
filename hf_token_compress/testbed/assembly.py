"""Put the pretrained parts together as a stock LlavaOnevisionForConditionalGeneration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
)

from .language_model import GgufLlama
from .parts import language_model_file, vision_tower_file
from .processor import IMAGE_TOKEN, PATCHES, TILE, VIDEO_TOKEN, build_processor
from .vision_tower import CONFIG as VISION
from .vision_tower import vision_tower_tensors

FEATURE_LAYERS = [4, 8, 10]
"""Layers of the tower whose outputs the projector reads, side by side."""

_LANGUAGE_MODEL = "model.language_model."
_ADAPTED = "base_model.model.model."


def assemble(
    adapter: Path | None = None,
    projector: Path | None = None,
    *,
    dtype: torch.dtype | str = torch.bfloat16,
    **model_options: Any,
) -> tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor]:
    """Assemble the testbed from its parts.

    Args:
        adapter: Folder of a LoRA adapter in peft's format for a LlamaForCausalLM, merged into the
            language model; None for the language model as it is.
        projector: Safetensors file of projector and newline; None for untrained ones, from seed 0.
        dtype: Type of all weights, or its name.
        **model_options: Passed to `from_pretrained`, for instance `token_compression=…`.

    Returns:
        (model in evaluation mode, processor).

    Raises:
        ImportError: A part's package is not installed.
        FileNotFoundError: There is no such adapter or projector.
    """
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    gguf = language_model_file()
    language_model = GgufLlama(gguf)
    processor = build_processor(gguf)
    config = _config(language_model.config, processor.tokenizer)
    words = config.text_config.vocab_size
    update = None if adapter is None else _Adapter(adapter)
    state: dict[str, Tensor] = {}
    for name, weight in language_model.tensors(torch.float32 if update else dtype):
        if update is not None:
            weight = update.applied(name, weight).to(dtype)
        if name == "embed_tokens.weight":
            weight = torch.cat(
                [weight, weight.mean(0, keepdim=True).expand(words - len(weight), -1)]
            )
        state[_LANGUAGE_MODEL + name] = weight
    state["lm_head.weight"] = state[f"{_LANGUAGE_MODEL}embed_tokens.weight"]
    tower = vision_tower_tensors(vision_tower_file(), dtype, PATCHES)
    state.update({f"model.vision_tower.{name}": weight for name, weight in tower.items()})
    state.update(_projector(config, projector, dtype))
    model: LlavaOnevisionForConditionalGeneration = (
        LlavaOnevisionForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, **model_options
        )
    )
    model.generation_config = GenerationConfig(
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
        pad_token_id=config.text_config.pad_token_id,
        do_sample=False,
    )
    return model.eval(), processor


def _config(text: Mapping[str, Any], tokenizer: Any) -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        text_config={**text, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**VISION, "image_size": TILE},
        tie_word_embeddings=True,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        image_grid_pinpoints=[[TILE, TILE]],
        vision_feature_layer=FEATURE_LAYERS,
        vision_feature_select_strategy="default",
    )


def _projector(
    config: LlavaOnevisionConfig, file: Path | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Projector and newline, under the model's names."""
    if file is not None:
        return {name: weight.to(dtype) for name, weight in load_file(file).items()}
    generator = torch.Generator().manual_seed(0)
    width = config.text_config.hidden_size
    seen = config.vision_config.hidden_size * len(FEATURE_LAYERS)
    shapes = {"linear_1": (width, seen), "linear_2": (width, width)}
    state = {"model.image_newline": torch.randn(width, generator=generator) / width**0.5}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator) / shape[1] ** 0.5
        state[f"model.multi_modal_projector.{name}.weight"] = weight
        state[f"model.multi_modal_projector.{name}.bias"] = torch.zeros(width)
    return {name: weight.to(dtype) for name, weight in state.items()}


class _Adapter:
    """A LoRA adapter that is added to weights one by one, in float32."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        self._scaling = settings["lora_alpha"] / settings["r"]
        self._tensors = load_file(folder / "adapter_model.safetensors")

    def applied(self, name: str, weight: Tensor) -> Tensor:
        """The weight of that name in a `LlamaModel`, with its update if there is one."""
        part = _ADAPTED + name.removesuffix(".weight")
        down = self._tensors.get(f"{part}.lora_A.weight")
        if down is None:
            return weight
        up = self._tensors[f"{part}.lora_B.weight"]
        return weight + self._scaling * (up.float() @ down.float())
