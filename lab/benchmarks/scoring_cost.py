"""What scoring costs: `python -m lab.benchmarks.scoring_cost`.

Time and peak memory of the layer-0 scores of a prompt at the layer shapes of Qwen2-VL-7B (random
weights), against the eager attention of layer 0 for all rows, from which they could also be read.
Both start from the embeddings of the prompt; both give the same scores, which is checked. Each is
measured in a process of its own, so that nothing that was freed before counts.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hf_token_compress.evaluation.peak_memory import MEASURED_ENVIRONMENT, PeakMemory
from hf_token_compress.models.qwen2_vl import Qwen2VLFamily
from hf_token_compress.prompt import MultimodalPrompt
from hf_token_compress.scorers.attention import instruction_attention

from .subprocess_task import run_in_own_process

Method = Literal["eager", "scoring"]

METHODS: dict[Method, str] = {"eager": "eager attention, all rows", "scoring": "layer-0 scoring"}
_MODULE = "lab.benchmarks.scoring_cost"
_TEXT_BEFORE = 15


@dataclass(frozen=True)
class Cost:
    """Cost of the scores of one prompt.

    Attributes:
        memory: Bytes at the peak beyond the model and the prompt.
        seconds: Of the fastest of several runs.
        scores: Sum and largest of the visual tokens' scores.
    """

    memory: int
    seconds: float
    scores: tuple[float, float]


def measure(
    method: Method, *, visual_tokens: int, instruction: int, dtype: str = "float32", runs: int = 7
) -> Cost:
    """Measure time and memory of one method, each in a process of its own (Linux or CUDA).

    Args:
        method: "eager" or "scoring".
        visual_tokens: Visual tokens of the prompt.
        instruction: Text tokens after them.
        dtype: Of weights and activations, as torch names it.
        runs: Timed runs, of which the fastest counts.

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
    """Seconds of the fastest of `timed_runs`, or the bytes of one run; and `Cost.scores`."""
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
    """One decoder layer as wide as that of Qwen2-VL-7B; nothing of its MLP or vision is used."""
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
    columns = torch.arange(length, device=parameter.device)
    visual = (columns >= _TEXT_BEFORE) & (columns < _TEXT_BEFORE + visual_tokens)
    return MultimodalPrompt(
        input_ids=columns[None],
        inputs_embeds=embeds,
        position_ids=columns.expand(4, 1, length),
        attention_mask=torch.ones(1, length, dtype=torch.bool, device=parameter.device),
        visual_mask=visual[None],
        instruction_mask=(columns >= _TEXT_BEFORE + visual_tokens)[None],
        visuals=((),),
    )


def _scores(model: Any, prompt: MultimodalPrompt) -> Tensor:
    return instruction_attention(prompt, Qwen2VLFamily().scoring_layer(model))


def _eager_scores(model: Any, prompt: MultimodalPrompt) -> Tensor:
    decoder = model.language_model
    layer = decoder.layers[0]
    hidden = layer.input_layernorm(prompt.inputs_embeds)
    turn = decoder.rotary_emb(hidden, prompt.position_ids[-3:])
    length = hidden.shape[1]
    mask = torch.full((length, length), torch.finfo(hidden.dtype).min, device=hidden.device)
    mask = mask.triu_(1).to(hidden.dtype)[None, None]
    _, attention = layer.self_attn(hidden, attention_mask=mask, position_embeddings=turn)
    return attention[:, :, prompt.instruction_mask[0]].float().mean(dim=(1, 2))


def main(
    visual_tokens: Annotated[int, typer.Option(min=1, help="Visual tokens.")] = 1500,
    instruction: Annotated[int, typer.Option(min=1, help="Text tokens after them.")] = 40,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each; the fastest counts.")] = 7,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print what layer-0 scores cost against the eager attention of layer 0 for all rows."""
    if task is not None:
        typer.echo(json.dumps(_measure_here(*json.loads(task))))
        return
    costs = {
        method: measure(
            method, visual_tokens=visual_tokens, instruction=instruction, dtype=dtype, runs=runs
        )
        for method in METHODS
    }
    where = "CUDA" if torch.cuda.is_available() else "CPU"
    table = Table(
        title=f"{visual_tokens} visual tokens, {instruction} instruction rows, {dtype}, {where}"
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
    typer.echo(f"Sum and largest of the scores differ by {difference:.1e} of themselves.")


if __name__ == "__main__":
    typer.run(main)
