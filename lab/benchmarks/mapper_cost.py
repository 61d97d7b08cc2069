"""Cost of scoring with a mapper at the widths of a 7B model, counted and measured.

    python -m lab.benchmarks.mapper_cost

The measured model has the widths of Qwen2-VL-7B's language model (hidden 3584, 28 query and 4 key
heads), random weights, and a few of its 28 layers. All layers are alike: the time of 28 is
extrapolated as 28 / `--layers` times the measured time. The cost of scoring does not depend on the
number of layers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, Qwen2VLConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_token_compress.compression import compress, prepare_inputs, uncompress
from hf_token_compress.compression.identity import identify
from hf_token_compress.config import TokenCompressionConfig
from hf_token_compress.mapper import MapperConfig, MapperInput, ModelIdentity, RelevanceMapper

from ..arguments import make_parser, positive

HIDDEN, HEADS, KEY_HEADS, HEAD_DIM, MLP, LAYERS = 3584, 28, 4, 128, 18944, 28
_IMAGE, _VISION_START, _VISION_END, _TURN_END, _WORD = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Shapes:
    """One prompt.

    Attributes:
        rows: Rows of visual tokens.
        columns: Columns of visual tokens.
        instruction: Tokens of the question.
        retention_ratio: Share of visual tokens that is kept.
    """

    rows: int = 30
    columns: int = 50
    instruction: int = 40
    retention_ratio: float = 0.25

    @property
    def visual(self) -> int:
        """Visual tokens."""
        return self.rows * self.columns


def prefill_operations(tokens: int, layers: int = LAYERS) -> float:
    """Floating-point operations of a prefill of `tokens` tokens, without the output head."""
    weights = HIDDEN * (2 * HEADS + 2 * KEY_HEADS) * HEAD_DIM + 3 * HIDDEN * MLP
    # Causal attention: each query sees half of the keys on average, in two products.
    attention = 2 * HEADS * HEAD_DIM * tokens / 2
    return 2.0 * layers * tokens * (weights + attention)


def scoring_operations(shapes: Shapes, mapper: RelevanceMapper) -> float:
    """Floating-point operations of scoring: what the mapper's inputs need, and the mapper."""
    length = shapes.visual + shapes.instruction
    keys = length * HIDDEN * KEY_HEADS * HEAD_DIM
    queries = shapes.instruction * HIDDEN * HEADS * HEAD_DIM
    attention = shapes.instruction * length * HEADS * HEAD_DIM
    # The norm of each embedding, and its cosine to the mean and to each word.
    others = mapper.config.inputs != ("attention",)
    embeddings = others * shapes.visual * (shapes.instruction + 2) * HIDDEN
    return 2.0 * (keys + queries + attention + embeddings) + mapper_operations(shapes, mapper)


def mapper_operations(shapes: Shapes, mapper: RelevanceMapper) -> float:
    """Floating-point operations of the network, counted while it runs."""
    counted = 0.0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        # The output channels are the last axis of a linear layer, the first of a convolution.
        outputs = output.numel() / weight.shape[0]
        counted += 2.0 * weight.numel() * outputs

    kinds = (nn.Linear, nn.Conv1d, nn.Conv3d)
    handles = [
        module.register_forward_hook(count)
        for module in mapper.modules()
        if isinstance(module, kinds)
    ]
    grid = torch.arange(shapes.visual).view(1, shapes.rows, shapes.columns)
    others = torch.zeros(2, shapes.visual)
    mapper.relevance([MapperInput(torch.zeros(2, HEADS, shapes.visual), (grid,), others, others)])
    for handle in handles:
        handle.remove()
    return counted


def build_model(layers: int, dtype: torch.dtype) -> Any:
    """Qwen2-VL with the real widths of the language model and a minimal vision tower.

    Args:
        layers: Decoder layers.
        dtype: dtype of the weights, which are random.
    """
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": 16,
            "hidden_size": HIDDEN,
            "intermediate_size": MLP,
            "num_hidden_layers": layers,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "pad_token_id": 0,
            "eos_token_id": _TURN_END,
            "bos_token_id": None,
        },
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2},
        image_token_id=_IMAGE,
        video_token_id=6,
        vision_start_token_id=_VISION_START,
        vision_end_token_id=_VISION_END,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval()


def make_prompt(shapes: Shapes, dtype: torch.dtype) -> dict[str, Any]:
    """Model inputs of an encoded image and a question."""
    ids = [_VISION_START, *[_IMAGE] * shapes.visual, _VISION_END, *[_WORD] * shapes.instruction]
    input_ids = torch.tensor([[*ids, _TURN_END]])
    features = torch.randn(shapes.visual, HIDDEN, generator=torch.Generator().manual_seed(0))
    encoded = BaseModelOutputWithPooling(pooler_output=[features.to(dtype)])  # type: ignore[arg-type]
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == _IMAGE).long(),
        "image_grid_thw": torch.tensor([[1, 2 * shapes.rows, 2 * shapes.columns]]),
        "mm_encoder_outputs": {"image": encoded},
    }


@torch.inference_mode()
def measure(
    network: str, shapes: Shapes, layers: int, repeats: int, dtype: torch.dtype
) -> tuple[float, float, float]:
    """Median milliseconds of a stock prefill on the kept tokens, of scoring and of rewriting."""
    model = build_model(layers, dtype)
    mapper = RelevanceMapper(MapperConfig(identify(model), network=network)).eval()
    compress(model, TokenCompressionConfig(retention_ratio=shapes.retention_ratio))
    model.token_compression.use_mapper(mapper)
    inputs = make_prompt(shapes, dtype)
    scoring: list[float] = []
    rewriting: list[float] = []
    prefill: list[float] = []
    for repeat in range(repeats + 1):
        shorter = prepare_inputs(model, **inputs)
        report = model.token_compression.last
        with model.token_compression.disabled():
            start = perf_counter()
            model(**shorter, logits_to_keep=1)
            elapsed = 1e3 * (perf_counter() - start)
        if repeat > 0:  # the first run warms up
            scoring.append(report.scoring_ms)
            rewriting.append(report.rewriting_ms)
            prefill.append(elapsed)
    uncompress(model)
    return statistics.median(prefill), statistics.median(scoring), statistics.median(rewriting)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both costs as a Markdown table."""
    parser = make_parser("lab.benchmarks.mapper_cost", __doc__)
    parser.add_argument("--layers", type=positive, default=2, help="decoder layers to measure")
    parser.add_argument(
        "--repeats", type=positive, default=3, help="measurements, after one to warm up"
    )
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--retention-ratio", type=float, default=0.25, help="share to keep")
    options = parser.parse_args(arguments)
    shapes = Shapes(retention_ratio=options.retention_ratio)
    kept = round(shapes.retention_ratio * shapes.visual) + shapes.instruction
    print(
        f"{shapes.visual} visual tokens, {shapes.retention_ratio:.0%} kept; "
        f"{shapes.instruction} instruction tokens; {options.layers} layers measured in "
        f"{options.dtype} on {torch.get_num_threads()} CPU thread(s), extrapolated to {LAYERS}.\n"
    )
    print("| network | operations, share of the prefill | scoring + rewriting | prefill | ratio |")
    print("|---|---|---|---|---|")
    for network in ("grid", "conv1d"):
        prefill, scoring, rewriting = measure(
            network, shapes, options.layers, options.repeats, getattr(torch, options.dtype)
        )
        whole = prefill * LAYERS / options.layers
        share = _scoring_share(network, shapes, kept)
        print(
            f"| {network} | {share:.3%} | {scoring:.0f} + {rewriting:.1f} ms | {whole:.0f} ms "
            f"| {1 + (scoring + rewriting) / whole:.4f} |"
        )


def _scoring_share(network: str, shapes: Shapes, kept: int) -> float:
    identity = ModelIdentity("7B", None, "qwen2_vl", HIDDEN, LAYERS, HEADS)
    mapper = RelevanceMapper(MapperConfig(identity, network=network))
    return scoring_operations(shapes, mapper) / prefill_operations(kept)


if __name__ == "__main__":
    main()
