"""Peak memory and time of an explanation.

    python -m lab.benchmarks.relevance_cost

Compares the rule "gae" on a random decoder with an ordinary SDPA forward and backward pass, and
with the published way, which stores every attention map and its gradient. Each measurement runs in
its own process, so memory that an earlier one freed does not count.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hf_token_compress.evaluation.speed.peak_memory import MEASURED_ENVIRONMENT, PeakMemory
from hf_token_compress.viz.figures import Curve, Panel, figure_class, line_figure, save_figure

from ..arguments import add_task, make_parser, positive
from .subprocess_task import run_in_own_process
from .text_relevance import text_relevance

Method = Literal["sdpa", "relevance", "checkpointed", "stored"]

METHODS: dict[Method, str] = {
    "sdpa": "SDPA forward and backward",
    "relevance": "relevance",
    "checkpointed": "relevance, checkpointed",
    "stored": "stored maps",
}
_MODULE = "lab.benchmarks.relevance_cost"
_VOCABULARY = 1000


@dataclass(frozen=True)
class Cost:
    """Cost of one explanation.

    Attributes:
        memory: Peak bytes above the loaded model.
        seconds: Fastest of several runs: processor time on a CPU, elapsed time on a GPU.
    """

    memory: int
    seconds: float


def measure(
    method: Method, *, length: int, layers: int = 8, width: int = 512, heads: int = 8, runs: int = 3
) -> Cost:
    """Measure time and memory of one method, each in its own process (Linux or CUDA).

    Args:
        method: "sdpa", "relevance", "checkpointed" (relevance with the activations of one layer at
            a time) or "stored".
        length: Tokens of the prompt.
        layers: Decoder layers.
        width: Hidden size.
        heads: Attention heads; half as many key heads.
        runs: Timed runs; the fastest counts.

    Raises:
        RuntimeError: The measurement failed, for instance for lack of memory.
    """
    shape = (length, layers, width, heads)
    seconds = run_in_own_process(_MODULE, [method, *shape, runs], _described(method, length))
    return Cost(measure_memory(method, length, layers, width, heads), seconds)


def measure_memory(method: Method, length: int, layers: int, width: int, heads: int) -> int:
    """Peak bytes above the loaded model; arguments and errors as for `measure`."""
    task = [method, length, layers, width, heads, None]
    what = _described(method, length)
    return int(run_in_own_process(_MODULE, task, what, MEASURED_ENVIRONMENT))


def _described(method: Method, length: int) -> str:
    return f"{method} at {length} tokens"


def _measure_here(
    method: Method, length: int, layers: int, width: int, heads: int, timed_runs: int | None
) -> float:
    """Seconds of the fastest of `timed_runs`, or the peak bytes of one run if it is None."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _random_decoder(method, length, layers, width, heads).to(device)
    methods: dict[Method, Callable[[Any, Tensor], None]] = {
        "sdpa": _plain_backward,
        "relevance": _relevance,
        "checkpointed": functools.partial(_relevance, checkpointing=True),
        "stored": _stored_maps,
    }
    explain = methods[method]
    explain(model, torch.randint(0, _VOCABULARY, (1, 16), device=device))
    ids = torch.randint(0, _VOCABULARY, (1, length), device=device)
    if timed_runs is None:
        peak = PeakMemory(device)
        explain(model, ids)
        return peak.bytes()
    seconds = []
    # Processor time can be compared on a CPU that other processes use too.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for _ in range(timed_runs):
        start = clock()
        explain(model, ids)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return min(seconds)


def _random_decoder(method: Method, length: int, layers: int, width: int, heads: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=length,
    )
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    model.set_attn_implementation("eager" if method == "stored" else "sdpa")
    return model


def _plain_backward(model: Any, ids: Tensor) -> None:
    embeds = model.get_input_embeddings()(ids).requires_grad_()
    logits = model(inputs_embeds=embeds, logits_to_keep=1, use_cache=False).logits
    torch.autograd.grad(logits[0, -1, 0], embeds)


def _relevance(model: Any, ids: Tensor, checkpointing: bool = False) -> None:
    answer = torch.zeros(1, dtype=torch.long, device=ids.device)
    text_relevance(model, ids[0], answer, rule="gae", checkpointing=checkpointing)


def _stored_maps(model: Any, ids: Tensor) -> None:
    embeds = model.get_input_embeddings()(ids).requires_grad_()
    output = model(inputs_embeds=embeds, logits_to_keep=1, use_cache=False, output_attentions=True)
    gradients = torch.autograd.grad(output.logits[0, -1, 0], output.attentions)
    row = torch.nn.functional.one_hot(torch.tensor([ids.shape[1] - 1]), ids.shape[1]).to(embeds)
    for attention, gradient in zip(reversed(output.attentions), reversed(gradients), strict=True):
        row = row + row @ (attention * gradient)[0].clamp(min=0).mean(0)


def plot_memory(
    lengths: Sequence[int], memory: dict[str, Sequence[float | None]], path: Path
) -> None:
    """Plot peak memory against prompt length.

    Args:
        lengths: Prompt lengths in tokens.
        memory: For each method, MiB at each length; None where it was not measured.
        path: Image file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    curves = {}
    for name, values in memory.items():
        known = [(x, y) for x, y in zip(lengths, values, strict=True) if y is not None]
        curves[name] = Curve([x for x, _ in known], [y for _, y in known])
    figure = line_figure(Panel(curves, "tokens", "peak MiB above the model"))
    (axes,) = figure.axes
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the cost of an explanation, of a plain backward pass and of stored maps."""
    parser = make_parser("lab.benchmarks.relevance_cost", __doc__)
    parser.add_argument("--length", type=positive, default=1500, help="tokens of the prompt")
    parser.add_argument("--layers", type=positive, default=8, help="decoder layers")
    parser.add_argument("--width", type=positive, default=512, help="hidden size")
    parser.add_argument("--heads", type=positive, default=8, help="attention heads")
    parser.add_argument(
        "--runs", type=positive, default=3, help="timed runs of each method; the fastest counts"
    )
    parser.add_argument(
        "--curve", type=Path, help="measure memory up to 8,000 tokens and plot it to this file"
    )
    add_task(parser)
    options = parser.parse_args(arguments)
    if options.task is not None:
        print(json.dumps(_measure_here(*json.loads(options.task))))
        return
    if options.curve is not None:
        figure_class()  # fail before the measurements if matplotlib is missing
    shape = {"layers": options.layers, "width": options.width, "heads": options.heads}
    costs = {
        method: measure(method, length=options.length, runs=options.runs, **shape)
        for method in METHODS
    }
    _print_table(
        costs,
        f"{options.length} tokens, {options.layers} layers, width {options.width}, "
        f"{options.heads} heads",
    )
    if options.curve is not None:
        _measure_curve(shape, options.curve)


def _measure_curve(shape: dict[str, int], path: Path) -> None:
    """Measure memory at several lengths, print it and plot it."""
    lengths = [500, 1000, 2000, 3000, 4000, 6000, 8000]
    memory: dict[str, Sequence[float | None]] = {}
    for method, name in METHODS.items():
        # Stored maps at 3,000 tokens need as much memory as relevance at 20,000 or more.
        memory[name] = [
            measure_memory(method, tokens, **shape) / 2**20
            if method != "stored" or tokens <= 2000
            else None
            for tokens in lengths
        ]
    for number, tokens in enumerate(lengths):
        values = [measured[number] for measured in memory.values()]
        shown = ", ".join("-" if mib is None else f"{mib:.0f}" for mib in values)
        print(f"{tokens} tokens: {shown} MiB")
    plot_memory(lengths, memory, path)


def _print_table(costs: dict[Method, Cost], title: str) -> None:
    table = Table(title=title)
    for heading in ("", "Peak above the model", "Time", "Memory ratio", "Time ratio"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    base = costs["sdpa"]
    for method, name in METHODS.items():
        cost = costs[method]
        table.add_row(
            name,
            f"{cost.memory / 2**20:.0f} MiB",
            f"{cost.seconds:.2f} s",
            f"{cost.memory / base.memory:.2f}",
            f"{cost.seconds / base.seconds:.2f}",
        )
    console = Console()
    console.print(table)
    share = costs["relevance"].memory / costs["stored"].memory
    console.print(f"Relevance needs {share:.2f} of the memory of stored maps.")


if __name__ == "__main__":
    main()
