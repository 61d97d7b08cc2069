"""Time to first token, time per new token and size of the KV cache at the shapes of Qwen2-VL-7B.

    python -m lab.benchmarks.prefill_speed --device cuda

Random weights are fine for timing, not for accuracy. The vision tower is minimal, so times are
those of the language model, of scoring and of rewriting. All figures of a table come from one run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from hf_token_compress.compression import compress, uncompress
from hf_token_compress.compression.identity import identify
from hf_token_compress.config import TokenCompressionConfig
from hf_token_compress.mapper import MapperConfig, RelevanceMapper

from ..arguments import add_retention_ratios, comma_list, make_parser, positive
from .mapper_cost import HEAD_DIM, KEY_HEADS, LAYERS, Shapes, build_model, prompt_ids

_COLUMNS = 50
_PIXELS_OF_A_PATCH = 3 * 2 * 14 * 14
_VOCABULARY = 152064


@dataclass(frozen=True)
class Speed:
    """Speed of one setting.

    Attributes:
        first_token: Milliseconds from the prompt to the first new token, scoring included.
        next_token: Milliseconds of each further token.
        cache: Bytes of the KV cache after the prompt.
    """

    first_token: float
    next_token: float
    cache: int


def make_inputs(shapes: Shapes, batch: int, device: torch.device, dtype: torch.dtype) -> Any:
    """A batch of prompts with one image and one question each; images as patches."""
    input_ids, is_image = prompt_ids(shapes)
    patches = batch * 4 * shapes.visual
    generator = torch.Generator(device).manual_seed(0)
    return {
        "input_ids": input_ids.expand(batch, -1).to(device),
        "attention_mask": torch.ones_like(input_ids).expand(batch, -1).to(device),
        "mm_token_type_ids": is_image.long().expand(batch, -1).to(device),
        "image_grid_thw": torch.tensor(
            [[1, 2 * shapes.rows, 2 * shapes.columns]] * batch, device=device
        ),
        "pixel_values": torch.randn(
            patches, _PIXELS_OF_A_PATCH, generator=generator, device=device, dtype=dtype
        ),
    }


@torch.inference_mode()
def measure(model: Any, inputs: Any, new_tokens: int, repeats: int) -> Speed:
    """Median times of a model, compressed or not."""

    def generate(count: int) -> Any:
        return model.generate(
            **inputs,
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            return_dict_in_generate=True,
        )

    first = _milliseconds(lambda: generate(1), model.device, repeats)
    whole = _milliseconds(lambda: generate(1 + new_tokens), model.device, repeats)
    output = generate(1)
    # Transformers 5.24 renamed `past_key_values` to `cache`.
    cache = output["cache"] if "cache" in output else output["past_key_values"]
    held = sum(_bytes(layer.keys) + _bytes(layer.values) for layer in cache.layers)
    return Speed(first, (whole - first) / new_tokens, held)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _milliseconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()  # compile, tune and fill caches first
    times = []
    for _ in range(repeats):
        synchronise()
        start = perf_counter()
        run()
        synchronise()
        times.append(1e3 * (perf_counter() - start))
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = make_parser("lab.benchmarks.prefill_speed", __doc__)
    add_retention_ratios(parser)
    parser.add_argument(
        "--visual-tokens",
        type=comma_list(int),
        default=[500, 1500, 6000],
        help="visual tokens of a prompt, between commas",
    )
    parser.add_argument("--batch-size", type=positive, default=1, help="prompts per batch")
    parser.add_argument("--layers", type=positive, default=LAYERS, help="decoder layers")
    parser.add_argument("--new-tokens", type=positive, default=16, help="tokens after the first")
    parser.add_argument(
        "--repeats", type=positive, default=5, help="measurements, after one to warm up"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device of the model",
    )
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16, float16 or float32")
    options = parser.parse_args(arguments)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    model = build_model(options.layers, dtype, device, _VOCABULARY)
    mapper = RelevanceMapper(MapperConfig(identify(model), network="grid")).to(device).eval()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}, {options.dtype}, batch {options.batch_size}: "
        f"{options.layers} layers of Qwen2-VL-7B's shapes ({KEY_HEADS} key heads of {HEAD_DIM}), "
        "random weights, no vision tower.\n"
    )
    print("| visual tokens | kept | scorer | first token | next tokens | KV cache |")
    print("|---|---|---|---|---|---|")
    for visual in options.visual_tokens:
        shapes = Shapes(rows=max(2, visual // _COLUMNS), columns=_COLUMNS)
        inputs = make_inputs(shapes, options.batch_size, device, dtype)
        stock = measure(model, inputs, options.new_tokens, options.repeats)
        _print_row(shapes.visual, shapes.visual, "(none)", stock, stock)
        for ratio in options.retention_ratios:
            for scorer in ("attention", "mapper"):
                compress(model, TokenCompressionConfig(retention_ratio=ratio, scorer="attention"))
                if scorer == "mapper":
                    model.token_compression.use_mapper(mapper)
                speed = measure(model, inputs, options.new_tokens, options.repeats)
                kept = model.token_compression.last.samples[0].visual_tokens_after
                uncompress(model)
                _print_row(shapes.visual, kept, scorer, speed, stock)


def _print_row(visual: int, kept: int, scorer: str, speed: Speed, stock: Speed) -> None:
    def cell(value: float, whole: float, unit: str) -> str:
        share = "" if speed is stock else f" ({value / whole:.2f})"
        return f"{value:,.1f} {unit}{share}"

    print(
        f"| {visual:,} | {kept:,} | {scorer} | {cell(speed.first_token, stock.first_token, 'ms')} "
        f"| {cell(speed.next_token, stock.next_token, 'ms')} "
        f"| {cell(speed.cache / 2**20, stock.cache / 2**20, 'MiB')} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
