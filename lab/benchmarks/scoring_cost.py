"""Time and peak memory of scoring at layer 0.

    python -m lab.benchmarks.scoring_cost

Compares four things for one prompt at the shapes of Qwen2-VL-7B (random weights): scoring by the
fast path, scoring by the probe, the eager attention of layer 0 for all queries, which contains the
scores, and one whole decoder layer. The scores are checked to be the same. Each measurement runs in
its own process, so memory that an earlier one freed does not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_token_compress import compress
from hf_token_compress.compression.inputs import PromptLayout, read_layout
from hf_token_compress.compression.reading import read
from hf_token_compress.evaluation.speed.peak_memory import MEASURED_ENVIRONMENT, PeakMemory
from hf_token_compress.scorers.attention import instruction_attention

from ..arguments import add_task, make_parser, positive
from .subprocess_task import run_in_own_process

Method = Literal["fast", "probe", "eager", "layer"]

METHODS: dict[Method, str] = {
    "fast": "scoring, fast path",
    "probe": "scoring, probe",
    "eager": "eager attention, all queries",
    "layer": "one decoder layer",
}
_MODULE = "lab.benchmarks.scoring_cost"
_TEXT_BEFORE = 15
_WIDTH = 3584
_IMAGE = 150


@dataclass(frozen=True)
class Cost:
    """Cost of the scores of one prompt.

    Attributes:
        memory: Peak bytes above the model and the prompt.
        seconds: Fastest of several runs.
        scores: Sum and maximum of the visual tokens' scores.
    """

    memory: int
    seconds: float
    scores: tuple[float, float]


def measure(
    method: Method, *, visual_tokens: int, instruction: int, dtype: str = "float32", runs: int = 7
) -> Cost:
    """Measure time and memory of one method, each in its own process (Linux or CUDA).

    Args:
        method: One of `METHODS`.
        visual_tokens: Visual tokens of the prompt.
        instruction: Text tokens after them.
        dtype: Name of the dtype of weights and activations.
        runs: Timed runs; the fastest counts.

    Raises:
        RuntimeError: The measurement failed, for instance for lack of memory.
    """
    prompt = (visual_tokens, instruction, dtype)
    seconds, scores = run_in_own_process(_MODULE, [method, *prompt, runs], method)
    memory, _ = run_in_own_process(_MODULE, [method, *prompt, None], method, MEASURED_ENVIRONMENT)
    return Cost(int(memory), seconds, tuple(scores))


@torch.inference_mode()
def _measure_here(
    method: Method, visual_tokens: int, instruction: int, dtype: str, timed_runs: int | None
) -> tuple[float, tuple[float, float]]:
    """Seconds of the fastest of `timed_runs`, or peak bytes if it is None; and `Cost.scores`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _narrow_model(whole=method == "layer").to(device=device, dtype=getattr(torch, dtype))
    model = compress(model, {"scorer": "attention"})
    compute = {"fast": _scores, "probe": _probed_scores, "eager": _eager_scores, "layer": _layer}
    compute[method](model, *_prompt(model, 16, 4))
    prompt = _prompt(model, visual_tokens, instruction)
    if timed_runs is None:
        peak = PeakMemory(device)
        scores = compute[method](model, *prompt)
        cost: float = peak.bytes()
    else:
        seconds = []
        for _ in range(timed_runs):
            start = time.perf_counter()
            scores = compute[method](model, *prompt)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        cost = min(seconds)
    visual = scores[0, _TEXT_BEFORE : _TEXT_BEFORE + visual_tokens]
    return cost, (visual.sum().item(), visual.max().item())


def _narrow_model(whole: bool) -> Any:
    """Two decoder layers with the attention of Qwen2-VL-7B, and its MLP if they are `whole`."""
    from transformers import Qwen2VLConfig, Qwen2VLModel

    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            "hidden_size": _WIDTH,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "num_hidden_layers": 1 if whole else 2,
            "intermediate_size": 18944 if whole else 16,
            "vocab_size": 160,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 1, "hidden_size": _WIDTH},
        image_token_id=_IMAGE,
        video_token_id=_IMAGE + 1,
    )
    return Qwen2VLModel(config).eval().requires_grad_(False)


def _prompt(
    model: Any, visual_tokens: int, instruction: int
) -> tuple[PromptLayout, dict[str, Any]]:
    """The layout and the inputs of a prompt with the features of one image."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(visual_tokens, _WIDTH, generator=generator)
    merge = model.config.vision_config.spatial_merge_size
    ids = [5] * _TEXT_BEFORE + [_IMAGE] * visual_tokens + [6] * instruction
    input_ids = torch.tensor([ids], device=model.device)
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == _IMAGE).long(),
        "image_grid_thw": torch.tensor([[1, merge, merge * visual_tokens]]),
        "mm_encoder_outputs": {
            "image": BaseModelOutputWithPooling(
                pooler_output=[features.to(model.device, model.dtype)]  # type: ignore[arg-type]
            )
        },
    }
    return read_layout(model, model.family, inputs), inputs


def _scores(model: Any, layout: PromptLayout, inputs: dict[str, Any]) -> Tensor:
    fast_path = model.token_compression.fast_path
    assert fast_path is not None, "The fast path does not fit this model."
    reading = read(model, model.family, layout, inputs, "last_turn", fast_path=fast_path)
    return instruction_attention(reading.scoring_layer(0))


def _probed_scores(model: Any, layout: PromptLayout, inputs: dict[str, Any]) -> Tensor:
    reading = read(model, model.family, layout, inputs, "last_turn")
    return instruction_attention(reading.scoring_layer(0))


def _eager_scores(model: Any, layout: PromptLayout, inputs: dict[str, Any]) -> Tensor:
    """The attention map of layer 0 for all queries, from the embeddings of the prompt."""
    prompt = read(model, model.family, layout, inputs, "last_turn").prompt
    decoder = model.language_model
    model.set_attn_implementation("eager")
    layer = decoder.layers[0]
    hidden = layer.input_layernorm(prompt.inputs_embeds)
    rotary = decoder.rotary_emb(hidden, prompt.position_ids[-3:])
    length = hidden.shape[1]
    mask = torch.full((length, length), torch.finfo(hidden.dtype).min, device=hidden.device)
    mask = mask.triu_(1).to(hidden.dtype)[None, None]
    _, attention = layer.self_attn(hidden, attention_mask=mask, position_embeddings=rotary)
    return attention[:, :, prompt.instruction_mask[0]].float().mean(dim=(1, 2))


def _layer(model: Any, layout: PromptLayout, inputs: dict[str, Any]) -> Tensor:
    """The decoder with its one layer; what it returns are no scores."""
    prompt = read(model, model.family, layout, inputs, "last_turn").prompt
    hidden = model.language_model(
        inputs_embeds=prompt.inputs_embeds, position_ids=prompt.position_ids, use_cache=False
    ).last_hidden_state
    return hidden[..., 0].float()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the cost of layer-0 scores and of eager attention for all queries."""
    parser = make_parser(_MODULE, __doc__)
    parser.add_argument("--visual-tokens", type=positive, default=1500, help="visual tokens")
    parser.add_argument("--instruction", type=positive, default=40, help="text tokens after them")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument(
        "--runs", type=positive, default=7, help="timed runs of each method; the fastest counts"
    )
    add_task(parser)
    options = parser.parse_args(arguments)
    if options.task is not None:
        print(json.dumps(_measure_here(*json.loads(options.task))))
        return
    costs = {
        method: measure(
            method,
            visual_tokens=options.visual_tokens,
            instruction=options.instruction,
            dtype=options.dtype,
            runs=options.runs,
        )
        for method in METHODS
    }
    where = "CUDA" if torch.cuda.is_available() else "CPU"
    table = Table(
        title=f"{options.visual_tokens} visual tokens, {options.instruction} instruction tokens, "
        f"{options.dtype}, {where}"
    )
    for heading in ("", "time", "ratio", "extra memory", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    ours = costs["fast"]
    for method, name in METHODS.items():
        cost = costs[method]
        table.add_row(
            name,
            f"{1000 * cost.seconds:.1f} ms",
            f"{cost.seconds / ours.seconds:.1f}",
            f"{cost.memory / 2**20:.0f} MiB",
            f"{cost.memory / max(ours.memory, 1):.1f}",
        )
    Console().print(table)
    difference = max(
        abs(a - b) / b
        for method in ("fast", "probe")
        for a, b in zip(costs[method].scores, costs["eager"].scores, strict=True)
    )
    print(f"Sum and maximum of the scores have a relative difference of {difference:.1e}.")


if __name__ == "__main__":
    main()
