"""Time one generation: its first token, each further token, and the decoder's layers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import timer  # waits for the accelerator
from transformers import StoppingCriteria, StoppingCriteriaList


@dataclass(frozen=True)
class Spread:
    """A figure that was measured several times.

    Attributes:
        values: One per repeat.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    def over(self, other: Spread) -> Spread:
        """The ratio to another figure, repeat by repeat: noise of a repeat hits both."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def to_dict(self) -> dict[str, float]:
        """Median and quartiles."""
        low, high = self.quartiles
        return {"median": self.median, "low": low, "high": high}


@dataclass(frozen=True)
class TimedCall:
    """Milliseconds of one generation.

    Attributes:
        first_token: From the call to the first new token.
        next_token: Each further token, the median; None if there was none.
        layer_first: One decoder layer on the prompt, the median; None if layers were not timed.
        layer_next: One decoder layer on a further token.
    """

    first_token: float
    next_token: float | None
    layer_first: float | None = None
    layer_next: float | None = None


class _Stamps(StoppingCriteria):
    """Notes when each token is there."""

    def __init__(self) -> None:
        self.times = [timer()]

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        self.times.append(timer())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@dataclass
class LayerClock:
    """Times every call of decoder layers inside `running()`, without waiting for a CUDA device.

    Attributes:
        layers: The layers in order.
        device: Where they compute.
    """

    layers: list[nn.Module]
    device: torch.device
    _marks: list[tuple[Any, Any]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the layers inside the `with` block."""
        self._marks.clear()
        started: list[Any] = []

        def start(module: nn.Module, arguments: Any) -> None:
            started.append(self._mark())

        def stop(module: nn.Module, arguments: Any, output: Any) -> None:
            self._marks.append((started.pop(), self._mark()))

        handles = [layer.register_forward_pre_hook(start) for layer in self.layers]
        handles += [layer.register_forward_hook(stop) for layer in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def milliseconds(self) -> tuple[float, float | None]:
        """The median layer in the first pass, and in the passes after it if there were any."""
        found = [_between(*marks) for marks in self._marks]
        first, later = found[: len(self.layers)], found[len(self.layers) :]
        return statistics.median(first), statistics.median(later) if later else None

    def total(self) -> float:
        """Milliseconds of all calls."""
        return sum(_between(*marks) for marks in self._marks)

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return timer()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(start: Any, stop: Any) -> float:
    return 1e3 * (stop - start) if isinstance(start, float) else start.elapsed_time(stop)


def timed_call(
    model: Any,
    inputs: Mapping[str, Any],
    new_tokens: int,
    *,
    token_compression: Any,
    layers: LayerClock | None = None,
) -> TimedCall:
    """Generate greedily: one token, then `new_tokens` more.

    Args:
        model: A compressed model.
        inputs: Keyword arguments of its generate.
        new_tokens: Tokens after the first.
        token_compression: Setting of the call; False for the stock model.
        layers: Times the decoder's layers too.
    """
    stamps = _Stamps()
    options = {"token_compression": token_compression, "stopping_criteria": [stamps]}
    if layers is None:
        generate(model, inputs, 1 + new_tokens, **options)
        layer_first, layer_next = None, None
    else:
        with layers.running():
            generate(model, inputs, 1 + new_tokens, **options)
        layer_first, layer_next = layers.milliseconds()
    called, first, *_ = stamps.times
    steps = [1e3 * (b - a) for a, b in zip(stamps.times[1:], stamps.times[2:], strict=False)]
    return TimedCall(
        first_token=1e3 * (first - called),
        next_token=statistics.median(steps) if steps else None,
        layer_first=layer_first,
        layer_next=layer_next,
    )


def with_layers(call: TimedCall, timed: TimedCall, missing: int) -> TimedCall:
    """A call with so many layers more, each as long as a layer of `timed`."""
    later = call.next_token
    if later is not None:
        later += missing * (timed.layer_next or 0.0)
    return TimedCall(call.first_token + missing * (timed.layer_first or 0.0), later)


def generate(model: Any, inputs: Mapping[str, Any], count: int, **options: Any) -> Any:
    """Generate exactly `count` tokens greedily; the output has the KV cache."""
    if "stopping_criteria" in options:
        options["stopping_criteria"] = StoppingCriteriaList(options["stopping_criteria"])
    return model.generate(
        **inputs,
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        return_dict_in_generate=True,
        **options,
    )
