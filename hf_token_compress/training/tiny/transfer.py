"""Start a tiny model from the trained tiny Qwen2-VL."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_token_compress.training.tiny.architecture import WORD_STD, StockModel


@torch.no_grad()
def take_language_model(
    model: StockModel,
    tokenizer: PreTrainedTokenizerBase,
    source: Any,
    source_tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Copy the layers, and the embeddings of the words that both tokenizers have.

    Args:
        model: The model to be trained, whose language model has layers of the same sizes.
        tokenizer: Its tokenizer.
        source: The trained model.
        source_tokenizer: The tokenizer of that.
    """
    state = source.model.language_model.state_dict()
    trained = state.pop("embed_tokens.weight")
    model.model.language_model.load_state_dict(state, strict=False)
    weight = model.get_input_embeddings().weight
    weight.normal_(0.0, WORD_STD)
    known = source_tokenizer.get_vocab()
    for word, index in tokenizer.get_vocab().items():
        if word in known:
            weight[index] = trained[known[word]]
