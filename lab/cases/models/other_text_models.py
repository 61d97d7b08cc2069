"""LLaVA-OneVision with any text model keeps the tokens of the true attention of layer 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from hf_token_compress import TokenCompressionConfig, compress
from hf_token_compress.compression.reading import read_prompt

from ..outcome import failure, report

IMAGE, TURN_END, PADDING = 90, 92, 94
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {},
    "cohere": {},
    "cohere2": {"layer_types": ["full_attention"] * 3},
    "glm4": {"head_dim": 8},
    "smollm3": {"no_rope_layers": [0, 1, 1]},
}
ROWS, COLUMNS, TEXT_BEFORE = 6, 8, 4


def problems() -> Iterator[str]:
    """Compare the tokens kept with the highest of the model's own attention maps."""
    for text_model, options in TEXT_MODELS.items():
        try:
            right, kept = _right_of_kept(text_model, options)
        except Exception as error:
            yield f"{text_model}: {failure(error)}"
            continue
        if right < kept:
            yield f"{text_model}: {right} of {kept} tokens kept are those of the true attention"


@torch.no_grad()
def _right_of_kept(text_model: str, options: dict[str, Any]) -> tuple[int, int]:
    model, inputs = _model(text_model, options), _inputs()
    prompt, _ = read_prompt(model, inputs)
    asking, visual = prompt.instruction_mask[0], prompt.visual_mask[0]
    maps = model(**inputs, output_attentions=True).attentions[0]  # [B, heads, S, S]
    attention = maps[0][:, asking].mean((0, 1)).masked_fill(~visual, -1)  # [S]
    setting = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0, scorer="attention")
    compress(model, setting)(**inputs)
    (sample,) = model.token_compression.last.samples
    kept = sample.visual_indices[sample.kept_visual]
    # Without RoPE, newline tokens have equal keys: any of them is right.
    weakest = attention.topk(len(kept)).values[-1] - 1e-7
    return int((attention[kept] >= weakest).sum()), len(kept)


def _model(text_model: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        text_config={
            "model_type": text_model,
            "vocab_size": 100,
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "pad_token_id": PADDING,
            "eos_token_id": TURN_END,
            "bos_token_id": None,
            "tie_word_embeddings": False,
            **options,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_use_head": False,
        },
        image_token_id=IMAGE,
        video_token_id=95,
        image_grid_pinpoints=[[16, 16]],
        tie_word_embeddings=False,
    )
    made = LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation="eager")
    return made.eval()


def _inputs() -> dict[str, Tensor]:
    """Text, an image of one tile (36 visual tokens), a question and the end of the turn."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(0, 80, (13,), generator=generator)
    ids = torch.cat(
        [
            text[:TEXT_BEFORE],
            torch.full((16 + 4 * 5,), IMAGE),
            text[TEXT_BEFORE : TEXT_BEFORE + 7],
            torch.tensor([TURN_END]),
            text[-2:],
        ]
    )[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 2, 3, 16, 16, generator=generator),
        "image_sizes": torch.tensor([[16, 16]]),
    }


if __name__ == "__main__":
    report(problems)
