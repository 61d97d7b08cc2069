"""Initialise a tiny model with the language model of a trained one of another family.

The layers of the families are the same, and the three position axes of Qwen2-VL are equal on text.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .architecture import WORD_STD, StockModel

_WAVES = 6
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)


def text_settings(source: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Configuration of a language model for the trained layers, without its model type.

    Args:
        source: The trained tiny model.
        tokenizer: Tokenizer of the new model.
    """
    trained = source.config.get_text_config()
    return {
        **{name: getattr(trained, name) for name in _SIZES},
        "vocab_size": len(tokenizer),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


@torch.no_grad()
def take_language_model(
    model: StockModel, tokenizer: PreTrainedTokenizerBase, source: Any, source_processor: Any
) -> None:
    """Copy the layers, and the embeddings of words that both tokenizers have.

    Biases that the trained layers lack stay zero.

    Args:
        model: The new model, in place.
        tokenizer: Its tokenizer.
        source: The trained tiny model.
        source_processor: Its processor.
    """
    state = source.model.language_model.state_dict()
    trained = state.pop("embed_tokens.weight")
    model.model.language_model.load_state_dict(state, strict=False)
    weight = model.get_input_embeddings().weight
    weight.normal_(0.0, WORD_STD)
    known = source_processor.tokenizer.get_vocab()
    for word, index in tokenizer.get_vocab().items():
        if word in known:
            weight[index] = trained[known[word]]


@torch.no_grad()
def see_coarsely(kernel: torch.Tensor) -> None:
    """Initialise a patch embedding with random mixtures of smooth waves of similar magnitude.

    With a kernel of independent pixels, features change when a drawing moves by two pixels. With
    smooth kernels they hardly change, and the tower learns many times faster.

    Args:
        kernel: [width, 3, patch, patch], overwritten.
    """
    width, channels, size, _ = kernel.shape
    frequency = torch.arange(_WAVES)
    pixel = torch.arange(size) + 0.5
    wave = torch.cos(math.pi / size * frequency[:, None] * pixel) * (2 / size) ** 0.5
    wave[0] /= 2**0.5  # orthonormal: rows of a cosine transform
    mixture = torch.randn(width, channels, _WAVES, _WAVES)
    # The amplitude of waves in natural images is about one over their frequency.
    mixture *= (1 + frequency[:, None] + frequency) / (size * (channels * _WAVES**2) ** 0.5)
    kernel.copy_(torch.einsum("ocuv,uh,vw->ochw", mixture, wave, wave))
