"""Assemble the pretrained parts into a stock LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from .language_model import PLACEHOLDERS, LanguageModelFile, with_added_rows
from .lora import NO_ADAPTER, LoraAdapter, read_adapter
from .parts import language_model_file, vision_tower_file
from .processor import GRID_PINPOINTS, SELECT_STRATEGY, build_processor
from .projector import read_projector, untrained_projector
from .vision_tower import CONFIG as VISION_CONFIG
from .vision_tower import fit_positions, read_vision_tower

if TYPE_CHECKING:
    from transformers import LlavaOnevisionProcessor

FEATURE_LAYERS = [4, 8, 10]
"""Layers of the tower whose hidden states are concatenated into a visual token."""

_EMBEDDINGS = "embed_tokens.weight"


def assemble(
    adapter: str | Path | None = None,
    projector: str | Path | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    **model_options: Any,
) -> tuple[Any, LlavaOnevisionProcessor]:
    """Assemble the testbed from the installed pretrained parts.

    Args:
        adapter: Folder of a LoRA adapter for the language model in PEFT's format, merged into the
            weights in float32; None for the original SmolLM2.
        projector: File written by `save_projector`; None for an untrained projector.
        dtype: dtype of all weights: a torch dtype, its name, or "auto" for bfloat16.
        **model_options: Passed to `from_pretrained`, for instance `token_compression=…`.

    Returns:
        (`LlavaOnevisionForConditionalGeneration` in evaluation mode, on the CPU; its processor).

    Raises:
        FileNotFoundError: There is no such adapter or projector.
        ImportError: A package that contains or reads a part is not installed.
        ValueError: The adapter does not fit this language model, or there is no such dtype.
    """
    if not isinstance(dtype, torch.dtype):
        dtype = _named_dtype(dtype)
    lora = NO_ADAPTER if adapter is None else read_adapter(adapter)
    # Config and tokenizer come from the language model's file.
    file = LanguageModelFile(language_model_file())
    tokenizer = file.tokenizer()
    config = _config(file, tokenizer)
    # Collect the weights of all three parts.
    trained = untrained_projector(config) if projector is None else read_projector(projector)
    state = {f"model.{name}": weight.to(dtype) for name, weight in trained.items()}
    for name, weight in read_vision_tower(vision_tower_file()):
        state[f"model.vision_tower.{name}"] = fit_positions(name, weight).to(dtype)
    for name, weight in _language_weights(file, lora):
        state[f"model.language_model.{name}"] = weight.to(dtype)
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, **model_options
    )
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, build_processor(tokenizer)


def _named_dtype(name: str) -> torch.dtype:
    found = torch.bfloat16 if name == "auto" else getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"There is no dtype {name!r}: choose auto, float32, bfloat16 or float16.")
    return found


def _config(file: LanguageModelFile, tokenizer: Any) -> LlavaOnevisionConfig:
    image, video = tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
    return LlavaOnevisionConfig(
        text_config=file.config(),
        vision_config=dict(VISION_CONFIG),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=GRID_PINPOINTS,
        vision_feature_layer=FEATURE_LAYERS,
        vision_feature_select_strategy=SELECT_STRATEGY,
        tie_word_embeddings=True,
    )


def _language_weights(file: LanguageModelFile, lora: LoraAdapter) -> Iterator[tuple[str, Tensor]]:
    """Names in `LlamaModel` and float32 weights, with the adapter merged and embeddings added."""
    unused = set(lora.pairs)
    for name, weight in file.weights():
        unused.discard(name)
        merged = lora.merge(name, weight)
        yield name, with_added_rows(merged) if name == _EMBEDDINGS else merged
    if unused:
        raise ValueError(
            f"The adapter changes {min(unused)!r}, which this language model does not have."
        )
