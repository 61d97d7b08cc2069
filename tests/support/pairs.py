"""Stock and compressed models with the same weights, and how to compare their outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from packaging.version import Version
from tiny_models import family_of, tiny_model
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from hf_token_compress import TokenCompressionConfig, compress

HALF = TokenCompressionConfig(retention_ratio=0.5, min_visual_tokens=0, scorer="uniform")
QUARTER = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0)
KEEP_ALL = TokenCompressionConfig(retention_ratio=1.0, min_visual_tokens=0)

CHUNKS_CARRY_FEATURES = Version(transformers.__version__) >= Version("5.23.0")
"""Whether chunked prefill takes prompts with images."""


class ModelPair(NamedTuple):
    """Two models with equal weights."""

    stock: Any
    compressed: Any


def make_pair(config: TokenCompressionConfig = QUARTER, **model_options: Any) -> ModelPair:
    """A stock model, and a compressed one with its weights."""
    stock = tiny_model(**model_options)
    return ModelPair(stock, compress(copy.deepcopy(stock), config))


def answer(sequences: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Everything after the caller's prompt, as users slice it."""
    return sequences[:, inputs["input_ids"].shape[1] :]


def sample_states(
    states: Tensor, number: int, inputs: Mapping[str, Tensor], samples: Sequence[Any]
) -> Tensor:
    """States of one sample of a compressed batch without its padding, [kept, D].

    Args:
        states: float [B, K, D], of the compressed batch.
        number: The sample.
        inputs: The caller's inputs.
        samples: The report's.
    """
    length = inputs["attention_mask"].shape[1]
    padded_after = length - 1 - int(inputs["attention_mask"][number].nonzero().max())
    last_visual = max([-1, *torch.cat([sample.visual_indices for sample in samples]).tolist()])
    end = states.shape[1] - min(padded_after, length - 1 - last_visual)
    return states[number, end - len(samples[number].kept_indices) : end]


def carried(cache: Any) -> dict[str, Any]:
    """A cache under the keyword that the stock forward of this version of Transformers takes."""
    parameters = inspect.signature(Qwen2VLForConditionalGeneration.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": cache}


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal within 1e-5, float32."""
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def whole_position_ids(stock: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Position ids of the uncompressed prompt, by the stock model."""
    return family_of(stock).position_ids(stock, inputs)


def masked_inputs(pair: ModelPair, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole prompt with the dropped tokens masked out, from the report of the last call.

    Dropping a token before layer 0 is the same as hiding it from every other token, so the stock
    model must give the same outputs on these inputs, and it shares no code with the rewrite.
    """
    mask = torch.zeros_like(inputs["attention_mask"])
    for number, sample in enumerate(pair.compressed.token_compression.last.samples):
        mask[number, sample.kept_indices] = 1
    return {
        **inputs,
        "attention_mask": mask,
        "position_ids": whole_position_ids(pair.stock, inputs),
    }
