"""Measure settings on one batch of prompts, by turns with the stock model and with their ideal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...compression import prepare_inputs
from ...compression.inputs import read_layout
from ...compression.probe import decoder_layers
from ...compression.rewriting import with_whole_features
from .peak_memory import peak_bytes
from .prompts import SizedPrompt
from .random_model import Depth
from .results import Comparison, SpeedResult
from .timing import LayerClock, Spread, TimedCall, generate, timed_call, with_layers


@dataclass(frozen=True)
class _Entry:
    """A setting to measure.

    Attributes:
        scorer: What results call it; None for the uncompressed model.
        retention_ratio: Share of visual tokens to keep.
        inputs: Arguments of the call.
        value: What the call passes as `token_compression`; False for the uncompressed model.
        kept: Visual tokens that a prompt keeps.
        prompt_tokens: All tokens that it keeps.
        ideal_inputs: The prepared inputs, which the stock model takes as they are.
        runs_model: Whether the scorer runs the model itself.
    """

    scorer: str | None
    retention_ratio: float
    inputs: Mapping[str, Any]
    value: Any
    kept: int
    prompt_tokens: int
    ideal_inputs: Mapping[str, Any] | None = None
    runs_model: bool = False


@dataclass(frozen=True)
class _Turn:
    """One repeat of a setting: its own call, that of its ideal, and milliseconds of its parts."""

    own: TimedCall
    ideal: TimedCall | None = None
    scoring: float = 0.0
    rewriting: float = 0.0


class PromptBench:
    """Measures settings on one batch of prompts, whose images are encoded once.

    Args:
        model: A compressed model.
        prompt: The prompts.
        depth: If the model is shorter than the real one: times and the KV cache are scaled.
        after_call: Called with 1 after each call of the model.
    """

    def __init__(
        self,
        model: Any,
        prompt: SizedPrompt,
        *,
        depth: Depth | None = None,
        after_call: Callable[[int], None] | None = None,
    ) -> None:
        self._model, self._prompt, self._depth = model, prompt, depth
        self._done = after_call or (lambda count: None)
        self._layers: LayerClock | None = None
        if depth is not None and depth.missing:
            self._layers = LayerClock(list(decoder_layers(model.get_decoder())), model.device)
        self._tower: LayerClock | None = None
        if depth is not None and depth.missing_vision:
            self._tower = LayerClock(_tower_layers(model, depth.vision_layers), model.device)
        self._batch_size, length = prompt.inputs["input_ids"].shape
        self._features, _ = self._encode()
        stock = _Entry(None, 1.0, self._features, False, prompt.visual_tokens, length)
        self.entries: list[_Entry] = [stock]

    @torch.no_grad()
    def add(self, scorer: str, value: Any) -> None:
        """Add a setting to measure.

        Args:
            scorer: What results call it.
            value: What a call passes as `token_compression`.

        Raises:
            MapperNotFoundError: There is no such mapper.
            TypeError, ValueError: There is no such scorer, or it does not fit the model.
        """
        compression = self._model.token_compression
        needs = compression.for_call(self._model, value).scorer.needs
        # Features come without the attention of the vision tower.
        inputs = self._prompt.inputs if "vision_attention" in needs else self._features
        ideal_inputs = prepare_inputs(self._model, **inputs, token_compression=value)
        report = compression.last.samples[0]
        entry = _Entry(
            scorer,
            report.retention_ratio,
            inputs,
            value,
            kept=report.visual_tokens_after,
            prompt_tokens=report.prompt_tokens_after,
            ideal_inputs=ideal_inputs,
            runs_model="model" in needs,
        )
        self.entries.append(entry)

    def measure(self, repeats: int, new_tokens: int) -> list[SpeedResult]:
        """Measure all settings: the uncompressed model's result, then those in order.

        Args:
            repeats: Measurements of each, after one to warm up.
            new_tokens: Tokens to generate after the first.
        """
        rounds, vision = [self._round(new_tokens)], []
        for repeat in range(repeats):
            vision.append(self._encode()[1])
            rounds.append(self._round(new_tokens, backwards=repeat % 2 == 0))
        by_entry = list(zip(*rounds[1:], strict=True))
        full = by_entry[0]
        return [
            self._result(entry, turns, full, Spread(tuple(vision)))
            for entry, turns in zip(self.entries, by_entry, strict=True)
        ]

    def compare(self, repeats: int) -> Spread:
        """Times to the first token of the first setting, as shares of the stock model's."""
        rounds = [self._round(0, backwards=repeat % 2 == 0) for repeat in range(1 + repeats)]
        full, own = zip(*((found[0], found[1]) for found in rounds[1:]), strict=True)
        return _compared([turn.own for turn in own], [turn.own for turn in full]).first_token

    @torch.no_grad()
    def _encode(self) -> tuple[dict[str, Any], float]:
        """The inputs with features in place of pixels, and the milliseconds of the vision part."""
        family, inputs = self._model.family, self._prompt.inputs
        with nullcontext() if self._tower is None else self._tower.running():
            layout = read_layout(self._model, family, inputs)
        self._done(1)
        milliseconds = layout.vision_ms
        if self._depth is not None and self._tower is not None:
            layer = self._tower.total() / self._depth.vision_layers
            milliseconds += self._depth.missing_vision * layer
        return with_whole_features(family, inputs, layout.encoded), milliseconds

    def _round(self, new_tokens: int, *, backwards: bool = False) -> list[_Turn]:
        """One turn of every entry; backwards every other time, so that none always comes first."""
        entries = self.entries[::-1] if backwards else self.entries
        turns = [self._turn(entry, new_tokens, own_first=backwards) for entry in entries]
        return turns[::-1] if backwards else turns

    def _turn(self, entry: _Entry, new_tokens: int, *, own_first: bool) -> _Turn:
        missing = 0 if self._depth is None else self._depth.missing
        # Layers are timed where no scorer runs them.
        if entry.ideal_inputs is None:
            stock = self._timed(entry.inputs, False, new_tokens, self._layers)
            return _Turn(with_layers(stock, stock, missing))
        of_own = (entry.inputs, entry.value, new_tokens, None)
        of_ideal = (entry.ideal_inputs, False, new_tokens, self._layers)
        if own_first:
            call, ideal = self._timed(*of_own), self._timed(*of_ideal)
        else:
            ideal, call = self._timed(*of_ideal), self._timed(*of_own)
        # The ideal call, with inputs that are compressed already, leaves the report as it is.
        report = self._model.token_compression.last
        scoring = report.scoring_ms
        if entry.runs_model and self._depth is not None:
            scoring *= self._depth.decoder_scale
        # Vision is measured apart, where the call did not get features.
        more = scoring - report.scoring_ms - report.vision_ms
        call = replace(call, first_token=call.first_token + more)
        own = with_layers(call, ideal, missing)
        return _Turn(own, with_layers(ideal, ideal, missing), scoring, report.rewriting_ms)

    def _timed(
        self, inputs: Mapping[str, Any], value: Any, new_tokens: int, layers: LayerClock | None
    ) -> TimedCall:
        call = timed_call(self._model, inputs, new_tokens, token_compression=value, layers=layers)
        self._done(1)
        return call

    def _memory(self, entry: _Entry) -> tuple[int, int | None]:
        """Bytes of the KV cache after the prompt, and at the peak."""
        held: list[int] = []

        def run() -> None:
            output = generate(self._model, entry.inputs, 1, token_compression=entry.value)
            held.append(cache_bytes(output))

        peak = peak_bytes(run, self._model.device)
        self._done(1)
        scale = 1.0 if self._depth is None else self._depth.decoder_scale
        return round(held[0] * scale), peak

    def _result(
        self, entry: _Entry, turns: Sequence[_Turn], full: Sequence[_Turn], vision: Spread
    ) -> SpeedResult:
        own = [turn.own for turn in turns]
        ideal = [turn.ideal for turn in turns if turn.ideal is not None]
        kv_bytes, peak = self._memory(entry)
        return SpeedResult(
            scorer=entry.scorer,
            retention_ratio=entry.retention_ratio,
            batch_size=self._batch_size,
            visual_tokens=self._prompt.visual_tokens,
            kept_visual_tokens=entry.kept,
            prompt_tokens=entry.prompt_tokens,
            vision=vision,
            scoring=Spread(tuple(turn.scoring for turn in turns)) if ideal else None,
            rewriting=Spread(tuple(turn.rewriting for turn in turns)) if ideal else None,
            first_token=_first_tokens(own),
            next_token=_next_tokens(own),
            kv_bytes=kv_bytes,
            peak_bytes=peak,
            to_full=_compared(own, [turn.own for turn in full]) if ideal else None,
            to_ideal=_compared(own, ideal) if ideal else None,
        )


def _tower_layers(model: Any, count: int) -> list[nn.Module]:
    """The layers of the vision tower, which are `count`."""
    tower = model.get_encoder(modality="image")
    lists = (part for part in tower.modules() if isinstance(part, nn.ModuleList))
    found = next((part for part in lists if len(part) == count), None)
    if found is None:
        raise ValueError(
            f"The layers of {type(tower).__name__} are not in one list, so their time cannot be "
            "scaled: leave vision_layers out."
        )
    return list(found)


def cache_bytes(output: Any) -> int:
    """Bytes of all tensors in the cache of what `generate` returns."""
    # Transformers 5.24 renamed `past_key_values` to `cache`.
    cache = output["cache"] if "cache" in output else output["past_key_values"]
    return sum(
        value.numel() * value.element_size()
        for layer in cache.layers
        for value in vars(layer).values()
        if isinstance(value, Tensor)
    )


def _first_tokens(calls: Sequence[TimedCall]) -> Spread:
    return Spread(tuple(call.first_token for call in calls))


def _next_tokens(calls: Sequence[TimedCall]) -> Spread | None:
    steps = [call.next_token for call in calls if call.next_token is not None]
    return Spread(tuple(steps)) if steps else None


def _compared(calls: Sequence[TimedCall], others: Sequence[TimedCall]) -> Comparison:
    first = _first_tokens(calls).over(_first_tokens(others))
    later, other_later = _next_tokens(calls), _next_tokens(others)
    if later is None or other_later is None:
        return Comparison(first, None)
    return Comparison(first, later.over(other_later))
