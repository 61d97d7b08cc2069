"""Configuration, weights and tokenizer of SmolLM2-135M-Instruct, from its GGUF file.

Weights are dequantised one at a time, so only one is held in float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .parts import reader

ADDED_ROWS = 64
"""Embeddings added after SmolLM2's own: two placeholders, and unused ones to keep a multiple of
64."""

PLACEHOLDERS = ("<image>", "<video>")

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_CONTROL_TOKEN = 3


class LanguageModelFile:
    """A memory-mapped GGUF file of a Llama.

    Args:
        file: Path of the file.

    Raises:
        ImportError: The package gguf is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._gguf = reader("gguf")
        self._reader = self._gguf.GGUFReader(file)

    def config(self) -> dict[str, Any]:
        """Settings of `LlamaConfig`, with `ADDED_ROWS` more embeddings."""
        return {
            "model_type": "llama",
            "vocab_size": self._setting("llama.vocab_size") + ADDED_ROWS,
            "hidden_size": self._setting("llama.embedding_length"),
            "intermediate_size": self._setting("llama.feed_forward_length"),
            "num_hidden_layers": self._setting("llama.block_count"),
            "num_attention_heads": self._setting("llama.attention.head_count"),
            "num_key_value_heads": self._setting("llama.attention.head_count_kv"),
            "max_position_embeddings": self._setting("llama.context_length"),
            "rms_norm_eps": self._setting("llama.attention.layer_norm_rms_epsilon"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self._setting("llama.rope.freq_base"),
            },
            "bos_token_id": self._setting("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self._setting("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self._setting("tokenizer.ggml.padding_token_id"),
            "tie_word_embeddings": True,
        }

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names in `LlamaModel` and float32 weights, without the added embeddings."""
        heads = {
            "attn_q": self._setting("llama.attention.head_count"),
            "attn_k": self._setting("llama.attention.head_count_kv"),
        }
        for tensor in self._reader.tensors:
            weight = torch.from_numpy(
                self._gguf.dequantize(tensor.data, tensor.tensor_type).copy()
            ).float()
            match = _LAYER_TENSOR.fullmatch(tensor.name)
            if match is None:
                yield _NAMES[tensor.name], weight
                continue
            layer, kind = match.groups()
            if kind in heads:
                weight = _halves_instead_of_pairs(weight, heads[kind])
            yield f"layers.{layer}.{_LAYER_NAMES[kind]}.weight", weight

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with placeholders for images and videos added at the end.

        Digits are single tokens, as in SmolLM2's own tokenizer ("smollm" in llama.cpp).
        """
        tokens = self._setting("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ")) for merge in self._setting("tokenizer.ggml.merges")]
        backend = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        special = {
            f"{role}_token": tokens[self._setting(f"tokenizer.ggml.{name}_token_id")]
            for role, name in (
                ("bos", "bos"),
                ("eos", "eos"),
                ("unk", "unknown"),
                ("pad", "padding"),
            )
        }
        types = self._setting("tokenizer.ggml.token_type")
        control = [
            token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN
        ]
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            **special,
            extra_special_tokens=[*control, *PLACEHOLDERS],
            model_max_length=self._setting("llama.context_length"),
            clean_up_tokenization_spaces=False,
        )

    def _setting(self, name: str) -> Any:
        return self._reader.fields[name].contents()


def with_added_rows(embeddings: Tensor) -> Tensor:
    """Append `ADDED_ROWS` embeddings to [V, D], each the mean of a different group of tokens.

    Its logit in the tied head is a mean of other logits and therefore never the highest. All of
    them differ, so a placeholder can be recognised by its embedding.
    """
    groups = embeddings.view(-1, ADDED_ROWS, embeddings.shape[1])  # [groups, ADDED_ROWS, D]
    return torch.cat([embeddings, groups.mean(0)])  # [V + ADDED_ROWS, D]


def _halves_instead_of_pairs(weight: Tensor, heads: int) -> Tensor:
    """Reorder a query or key projection for Transformers.

    RoPE rotates pairs of channels: llama.cpp stores a pair side by side, Transformers half a head
    apart.
    """
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)
