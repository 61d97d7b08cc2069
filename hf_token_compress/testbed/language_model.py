"""SmolLM2's configuration and weights out of a GGUF file, one tensor at a time.

Transformers reads GGUF too, but makes float32 of the whole model first, which takes twice the
memory that the testbed is to be loaded in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .parts import require

_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_WHOLE = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}


class GgufLlama:
    """A Llama model in a GGUF file.

    Args:
        path: The file.

    Attributes:
        config: Keyword arguments of a `LlamaConfig`.

    Raises:
        ImportError: The package gguf is missing.
        ValueError: The file holds no Llama model.
    """

    def __init__(self, path: Path) -> None:
        require("gguf")
        from gguf import GGUFReader

        self._reader = GGUFReader(path)
        if (found := self._field("general.architecture")) != "llama":
            raise ValueError(f"{path.name} holds a {found!r} model, but the testbed needs 'llama'.")
        heads = self._field("llama.attention.head_count")
        self.config: dict[str, Any] = {
            "vocab_size": self._field("llama.vocab_size"),
            "hidden_size": self._field("llama.embedding_length"),
            "intermediate_size": self._field("llama.feed_forward_length"),
            "num_hidden_layers": self._field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._field("llama.attention.head_count_kv"),
            "max_position_embeddings": self._field("llama.context_length"),
            "rms_norm_eps": self._field("llama.attention.layer_norm_rms_epsilon"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self._field("llama.rope.freq_base"),
            },
            "tie_word_embeddings": True,
            "bos_token_id": self._field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self._field("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self._field("tokenizer.ggml.padding_token_id"),
        }

    def tensors(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Names, as a `LlamaModel` has them, and weights."""
        from gguf import dequantize

        heads = self.config["num_attention_heads"]
        turned: dict[str, Callable[[Tensor], Tensor]] = {
            "self_attn.q_proj": lambda weight: _unturned(weight, heads),
            "self_attn.k_proj": lambda weight: _unturned(
                weight, self.config["num_key_value_heads"]
            ),
        }
        for tensor in self._reader.tensors:
            weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type), dtype=dtype)
            if tensor.name in _WHOLE:
                yield _WHOLE[tensor.name], weight
                continue
            _, layer, part, _ = tensor.name.split(".")
            name = _PARTS[part]
            yield f"layers.{layer}.{name}.weight", turned.get(name, _as_it_is)(weight)

    def _field(self, name: str) -> Any:
        field = self._reader.fields.get(name)
        return None if field is None else field.contents()


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


def _unturned(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in Transformers' order of rotary pairs: halves, not neighbours."""
    rows, columns = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)
