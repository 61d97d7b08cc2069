"""Time and peak memory of scoring at layer 0.

    python -m lab.benchmarks.scoring_cost

Compares the scores of one prompt at the layer shapes of Qwen2-VL-7B (random weights) with the eager
attention of layer 0 for all queries, which contains them. Both start from the embeddings of the
prompt, and the scores are checked to be the same. Each measurement runs in its own process, so
memory that an earlier one freed does not count.
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

from hf_token_compress.models.qwen2_vl import Qwen2VLFamily
from hf_token_compress.prompt import MultimodalPrompt
from hf_token_compress.scorers.attention import instruction_attention

from ..arguments import add_task, make_parser, positive
from .peak_memory import MEASURED_ENVIRONMENT, PeakMemory
from .subprocess_task import run_in_own_process

Method = Literal["eager", "scoring"]

METHODS: dict[Method, str] = {"eager": "eager attention, all queries", "scoring": "layer-0 scoring"}
_MODULE = "lab.benchmarks.scoring_cost"
_TEXT_BEFORE = 15


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
        method: "eager" or "scoring".
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
    model = _layer_zero().to(device=device, dtype=getattr(torch, dtype))
    compute = {"eager": _eager_scores, "scoring": _scores}[method]
    compute(model, _prompt(model, 16, 4))
    prompt = _prompt(model, visual_tokens, instruction)
    if timed_runs is None:
        peak = PeakMemory(device)
        scores = compute(model, prompt)
        cost: float = peak.bytes()
    else:
        seconds = []
        for _ in range(timed_runs):
            start = time.perf_counter()
            scores = compute(model, prompt)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        cost = min(seconds)
    visual = scores[0, _TEXT_BEFORE : _TEXT_BEFORE + visual_tokens]
    return cost, (visual.sum().item(), visual.max().item())


def _layer_zero() -> Any:
    """One decoder layer as wide as Qwen2-VL-7B's, with a minimal MLP and vision tower."""
    from transformers import Qwen2VLConfig, Qwen2VLModel

    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            "hidden_size": 3584,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "num_hidden_layers": 1,
            "intermediate_size": 16,
            "vocab_size": 160,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 1, "hidden_size": 3584},
    )
    model = Qwen2VLModel(config).eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    return model


def _prompt(model: Any, visual_tokens: int, instruction: int) -> MultimodalPrompt:
    length = _TEXT_BEFORE + visual_tokens + instruction
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(1, length, 3584, generator=generator).to(parameter)
    places = torch.arange(length, device=parameter.device)
    visual = (places >= _TEXT_BEFORE) & (places < _TEXT_BEFORE + visual_tokens)
    return MultimodalPrompt(
        input_ids=places[None],
        inputs_embeds=embeds,
        position_ids=places.expand(4, 1, length),
        attention_mask=torch.ones(1, length, dtype=torch.bool, device=parameter.device),
        visual_mask=visual[None],
        instruction_mask=(places >= _TEXT_BEFORE + visual_tokens)[None],
        visuals=((),),
    )


def _scores(model: Any, prompt: MultimodalPrompt) -> Tensor:
    return instruction_attention(prompt, Qwen2VLFamily().scoring_layer(model))


def _eager_scores(model: Any, prompt: MultimodalPrompt) -> Tensor:
    decoder = model.language_model
    layer = decoder.layers[0]
    hidden = layer.input_layernorm(prompt.inputs_embeds)
    rotary = decoder.rotary_emb(hidden, prompt.position_ids[-3:])
    length = hidden.shape[1]
    mask = torch.full((length, length), torch.finfo(hidden.dtype).min, device=hidden.device)
    mask = mask.triu_(1).to(hidden.dtype)[None, None]
    _, attention = layer.self_attn(hidden, attention_mask=mask, position_embeddings=rotary)
    return attention[:, :, prompt.instruction_mask[0]].float().mean(dim=(1, 2))


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
    ours = costs["scoring"]
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
        abs(a - b) / b for a, b in zip(ours.scores, costs["eager"].scores, strict=True)
    )
    print(f"Sum and maximum of the scores have a relative difference of {difference:.1e}.")


if __name__ == "__main__":
    main()
