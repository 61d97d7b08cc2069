"""The scoring layer of any text decoder is what its own attention function receives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_record import AttentionCall, record_attention
from errors import one_sentence
from largest_tensor import LargestTensor
from matrix import each_dtype, full_only
from tiny_decoders import DECODERS, MORE_OF_A_KIND, decoder_model
from tiny_models import make_inputs, tiny_family
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from hf_token_compress import compress, prepare_inputs
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.scorers.attention import instruction_attention
from hf_token_compress.scoring_layer import ScoringLayer

pytestmark = pytest.mark.core

NO_INTERFACE = ("bloom", "falcon", "mamba")
"""Decoders that do not call Transformers' AttentionInterface."""

COUNTS_BY_THE_MASK = ("opt",)
"""Decoders that count positions without padding, where LLaVA-OneVision counts padding too."""

# Its layer of Mamba below the first attention makes larger tensors of its own.
ATTENDS_FIRST = [name for name in DECODERS if name != "granitemoehybrid"]

each_decoder = pytest.mark.parametrize(
    "name", [full_only(name) if name in MORE_OF_A_KIND else name for name in DECODERS]
)
# Without padding, Transformers hands SDPA no mask.
each_batch = pytest.mark.parametrize("title", ["ragged", full_only("one_image")])
each_depth = pytest.mark.parametrize("depth", [0, 1, full_only(2)])


def inputs_for(
    name: str, title: str = "ragged", dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    prompts = tiny_family("llava_onevision").prompts[title]
    inputs = make_inputs(prompts, family="llava_onevision", dtype=dtype)
    if name in COUNTS_BY_THE_MASK:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return inputs


def of_instruction(states: Tensor, layer: ScoringLayer) -> Tensor:
    """States [B, heads, S, ...] of the instruction tokens, [Q, heads, ...]."""
    return states.transpose(1, 2)[layer.sample, layer.position]


def attention_rows(layer: ScoringLayer) -> Tensor:
    """Attention of the instruction tokens as the scoring layer describes it, [Q, heads, S]."""
    query, key = layer.query, layer.key[layer.sample]  # [Q, heads, d], [Q, S, key_heads, d]
    key = key.repeat_interleave(query.shape[1] // key.shape[2], dim=2)  # [Q, S, heads, d]
    logits = torch.einsum("qhd,qshd->qhs", query, key) * layer.scaling  # [Q, heads, S]
    if layer.softcap is not None:
        logits = layer.softcap * torch.tanh(logits / layer.softcap)
    distance = layer.position[:, None] - torch.arange(key.shape[1])  # [Q, S]
    visible = distance >= 0
    if layer.sliding_window is not None:
        visible &= distance < layer.sliding_window
    if layer.mask is not None:
        visible = layer.mask
    visible = visible & layer.key_mask[layer.sample]
    logits = logits.masked_fill(~visible[:, None], -torch.inf)
    if layer.sinks is not None:
        sinks = layer.sinks.expand(len(query), -1)[..., None]  # [Q, heads, 1]
        return torch.cat([logits, sinks], dim=-1).softmax(-1)[..., :-1]
    return logits.softmax(-1)


def call_of(calls: dict[int, AttentionCall], depth: int) -> tuple[int, AttentionCall]:
    """The first attention layer from `depth` on."""
    index = next(number for number in sorted(calls) if number >= depth)
    return index, calls[index]


@each_dtype
@each_batch
@each_depth
@each_decoder
def test_query_and_key_equal_the_models_own_to_the_bit(
    name: str, depth: int, title: str, dtype: torch.dtype
) -> None:
    model, inputs = decoder_model(name).to(dtype), inputs_for(name, title, dtype)
    with torch.no_grad():
        prompt, layer = read_prompt(model, inputs, scoring_depth=depth)
    attention = model.config.text_config._attn_implementation
    index, call = call_of(record_attention(model, inputs, attention), depth)
    assert layer.index == index
    instruction = (prompt.instruction_mask & prompt.attention_mask).nonzero()
    assert torch.equal(torch.stack([layer.sample, layer.position], dim=1), instruction)
    assert torch.equal(layer.query, of_instruction(call.query, layer))
    real = prompt.attention_mask
    assert torch.equal(layer.key_mask, real)
    assert torch.equal(layer.key[real], call.key.transpose(1, 2)[real])
    assert layer.scaling == call.scaling


@each_batch
@each_depth
@each_decoder
def test_rows_of_the_attention_map_equal_eager(name: str, depth: int, title: str) -> None:
    """With softcap, sinks, window and mask."""
    model, inputs = decoder_model(name, "eager"), inputs_for(name, title)
    with torch.no_grad():
        _, layer = read_prompt(model, inputs, scoring_depth=depth)
    _, call = call_of(record_attention(model, inputs, "eager"), depth)
    assert call.weights is not None
    expected = of_instruction(call.weights, layer)  # [Q, heads, S]
    torch.testing.assert_close(attention_rows(layer), expected, rtol=1e-5, atol=1e-6)
    scores = instruction_attention(layer)  # [B, S]
    for sample, row in enumerate(scores):
        mean = expected[layer.sample == sample].mean((0, 1))
        torch.testing.assert_close(row, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", [full_only(name) if name in MORE_OF_A_KIND else name for name in ATTENDS_FIRST]
)
def test_no_mask_is_made_whole(name: str) -> None:
    """Scoring at depth 0 makes no tensor that is as large as half the pairs of tokens."""
    inputs = make_inputs([(3, *[(4, 4)] * 48, 5, "end", 2)], family="llava_onevision")
    length = inputs["input_ids"].shape[1]
    stock = decoder_model(name, max_position_embeddings=1024)
    model = compress(stock, {"retention_ratio": 0.25, "min_visual_tokens": 0})
    with torch.no_grad(), LargestTensor() as largest:
        prepare_inputs(model, **inputs)
    assert largest.stored < length**2 / 2


@pytest.mark.parametrize("name", NO_INTERFACE)
def test_decoders_without_the_interface_are_refused(name: str) -> None:
    model, inputs = decoder_model(name), inputs_for(name)
    config = {"retention_ratio": 0.25, "min_visual_tokens": 0}
    with one_sentence(ValueError, "AttentionInterface"):
        prepare_inputs(compress(model, config), **inputs)


def test_a_mask_that_adds_numbers_is_refused() -> None:
    """Doge adds a learned number to each logit, which a scoring layer cannot say."""
    model, inputs = decoder_model("doge"), inputs_for("doge")
    config = {"retention_ratio": 0.25, "min_visual_tokens": 0}
    with one_sentence(ValueError, "attention mask"):
        prepare_inputs(compress(model, config), **inputs)


def test_attention_to_chosen_keys_is_refused() -> None:
    """DeepSeek-V3.2 chooses keys by an index that a scoring layer does not hold."""
    options = {
        "q_lora_rank": 16,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "num_key_value_heads": 6,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "index_n_heads": 2,
        "index_head_dim": 16,
        "index_topk": 4,
    }
    model = decoder_model("deepseek_v32", "eager", **options)
    config = {"retention_ratio": 0.25, "min_visual_tokens": 0}
    with one_sentence(ValueError, "indices"):
        prepare_inputs(compress(model, config), **inputs_for("llama"))


@pytest.mark.parametrize("window", [None, 20])
def test_a_layer_may_change_the_mask_that_it_gets(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As code of users does: the probe then reads what the layer made of it."""
    stock_forward = Qwen2Attention.forward

    def sliced(self: Any, **given: Any) -> Any:
        if given["attention_mask"] is not None:
            length = given["hidden_states"].shape[1]
            given["attention_mask"] = given["attention_mask"][:, :, :, :length].clone()
        return stock_forward(self, **given)

    sliding = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    model = decoder_model("qwen2", "eager", **(sliding if window else {}))
    inputs = inputs_for("qwen2")
    with torch.no_grad():
        _, layer = read_prompt(model, inputs)
        expected = attention_rows(layer)
        monkeypatch.setattr(Qwen2Attention, "forward", sliced)
        _, layer = read_prompt(model, inputs)
    torch.testing.assert_close(attention_rows(layer), expected)


@pytest.mark.parametrize("scorer", ["uniform", "random"])
@pytest.mark.parametrize("name", NO_INTERFACE)
def test_other_scorers_work_without_the_interface(name: str, scorer: str) -> None:
    model, inputs = decoder_model(name), inputs_for(name)
    config = {"retention_ratio": 0.25, "min_visual_tokens": 0, "scorer": scorer}
    model = compress(model, config)
    prepare_inputs(model, **inputs)
    first: Any = model.token_compression.last.samples[0]
    assert 0 < first.visual_tokens_after < first.visual_tokens_before
