"""Callbacks passed to `generate` see the caller's own prompt, never the shorter one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import ModelPair, answer
from tiny_models import ONE_IMAGE, RAGGED, TURN_END, VOCABULARY, make_inputs, tiny_model
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.generation.streamers import BaseStreamer

pytestmark = pytest.mark.core


class RecordingProcessor(LogitsProcessor):
    """Records every sequence and changes no score."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(input_ids.clone())
        return scores


class RecordingCriterion(StoppingCriteria):
    """Records every sequence and stops none."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.seen.append(input_ids.clone())
        return torch.zeros(len(input_ids), dtype=torch.bool)


class RecordingStreamer(BaseStreamer):
    def __init__(self) -> None:
        self.received: list[Tensor] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        self.received.append(value.clone())

    def end(self) -> None:
        self.ended += 1


def check_seen(seen: list[Tensor], inputs: dict[str, Tensor], copies: int) -> None:
    """Every sequence starts with its own prompt; beam search shows at least one per beam."""
    samples, length = inputs["input_ids"].shape
    assert len(seen) > 1
    for sequences in seen:
        assert len(sequences) >= copies * samples
        prompt = inputs["input_ids"].repeat_interleave(len(sequences) // samples, dim=0)
        assert torch.equal(sequences[:, :length], prompt)
    assert seen[-1].shape[1] > length


@pytest.mark.parametrize(("options", "copies"), [({}, 1), ({"num_beams": 3}, 3)])
def test_logits_processors(options: dict[str, Any], copies: int, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    recorder = RecordingProcessor()
    expected = pair.compressed.generate(**inputs, max_new_tokens=5, **options)
    out = pair.compressed.generate(
        **inputs, max_new_tokens=5, logits_processor=LogitsProcessorList([recorder]), **options
    )
    check_seen(recorder.seen, inputs, copies)
    assert recorder.seen[0].shape[1] == inputs["input_ids"].shape[1]
    assert torch.equal(out, expected)


def test_a_logits_processor_that_depends_on_the_sequence_length(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    length = inputs["input_ids"].shape[1]

    def count_up(input_ids: Tensor, scores: Tensor) -> Tensor:
        wanted = input_ids.shape[1] - length + 10
        return torch.full_like(scores, float("-inf")).index_fill(1, torch.tensor([wanted]), 0.0)

    processors = LogitsProcessorList([count_up])
    out = pair.compressed.generate(**inputs, max_new_tokens=4, logits_processor=processors)
    assert answer(out, inputs).tolist() == [[10, 11, 12, 13]] * len(RAGGED)


@pytest.mark.parametrize(("options", "copies"), [({}, 1), ({"num_beams": 2}, 2)])
def test_stopping_criteria(options: dict[str, Any], copies: int, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    recorder = RecordingCriterion()
    criteria = StoppingCriteriaList([recorder, MaxLengthCriteria(inputs["input_ids"].shape[1] + 3)])
    out = pair.compressed.generate(
        **inputs, max_new_tokens=9, stopping_criteria=criteria, eos_token_id=None, **options
    )
    check_seen(recorder.seen, inputs, copies)
    assert answer(out, inputs).shape[1] == 3
    assert len(criteria) == 2
    assert criteria[0] is recorder


def test_stopping_criteria_may_be_a_list_and_stop_samples_one_by_one(pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    options = {"max_new_tokens": 6, "eos_token_id": None}
    free = answer(pair.compressed.generate(**inputs, **options), inputs)
    stop_id = int(free[0, 2])
    criteria = [EosTokenCriteria(stop_id)]
    out = pair.compressed.generate(**inputs, **options, stopping_criteria=criteria)
    stopped = answer(out, inputs)
    assert torch.equal(stopped[0, :3], free[0, :3])
    for sample, tokens in enumerate(free):
        hits = (tokens == stop_id).nonzero().flatten().tolist()
        end = hits[0] + 1 if hits else len(tokens)
        assert torch.equal(stopped[sample, :end], tokens[:end])


@pytest.mark.parametrize("beams", [1, 3])
def test_prefix_allowed_tokens_fn(beams: int, pair: ModelPair) -> None:
    inputs = make_inputs(RAGGED)
    prompt = inputs["input_ids"]
    calls: list[int] = []

    def allowed(sample: int, sequence: Tensor) -> list[int]:
        calls.append(sample)
        assert torch.equal(sequence[: prompt.shape[1]], prompt[sample])
        step = len(sequence) - prompt.shape[1]
        return [20 + sample, 30 + sample] if step % 2 == 0 else [40 + sample]

    out = pair.compressed.generate(
        **inputs, max_new_tokens=4, num_beams=beams, prefix_allowed_tokens_fn=allowed
    )
    assert set(calls) == set(range(len(RAGGED)))
    for sample, tokens in enumerate(answer(out, inputs).tolist()):
        assert tokens[1::2] == [40 + sample] * 2
        assert set(tokens[::2]) <= {20 + sample, 30 + sample}


@pytest.mark.parametrize("prompts", [[ONE_IMAGE], RAGGED], ids=["one_image", "ragged"])
def test_a_streamer_gets_the_whole_prompt_and_then_the_answer(
    prompts: Any, pair: ModelPair
) -> None:
    inputs = make_inputs(prompts)
    streamer, stock_streamer = RecordingStreamer(), RecordingStreamer()
    out = pair.compressed.generate(**inputs, max_new_tokens=5, streamer=streamer)
    pair.stock.generate(**inputs, max_new_tokens=5, streamer=stock_streamer)
    assert torch.equal(streamer.received[0], inputs["input_ids"])
    assert torch.equal(torch.stack(streamer.received[1:], dim=1), answer(out, inputs))
    assert streamer.ended == 1
    assert streamer.received[0].shape == stock_streamer.received[0].shape
    assert streamer.received[1].shape == stock_streamer.received[1].shape


@pytest.mark.parametrize(
    "options",
    [{"prompt_lookup_num_tokens": 3}, {"assistant_model": tiny_model(seed=1)}],
    ids=["prompt_lookup", "assistant"],
)
def test_callbacks_under_speculation(options: dict[str, Any], pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    length = inputs["input_ids"].shape[1]
    processor, criterion, streamer = RecordingProcessor(), RecordingCriterion(), RecordingStreamer()
    plain = pair.compressed.generate(**inputs, max_new_tokens=6, do_sample=False)
    out = pair.compressed.generate(
        **inputs,
        max_new_tokens=6,
        do_sample=False,
        logits_processor=LogitsProcessorList([processor]),
        stopping_criteria=StoppingCriteriaList([criterion]),
        streamer=streamer,
        **options,
    )
    assert torch.equal(out, plain)
    for sequences in [*processor.seen, *criterion.seen]:
        assert torch.equal(sequences[:, :length], inputs["input_ids"])
    received = torch.cat([value.flatten() for value in streamer.received])
    assert torch.equal(received, out[0])


def test_callbacks_see_text_only_prompts(pair: ModelPair) -> None:
    inputs = make_inputs([(5, "end", 2)])
    recorder, streamer = RecordingProcessor(), RecordingStreamer()
    pair.compressed.generate(
        **inputs,
        max_new_tokens=3,
        logits_processor=LogitsProcessorList([recorder]),
        streamer=streamer,
    )
    assert torch.equal(recorder.seen[0], inputs["input_ids"])
    assert torch.equal(streamer.received[0], inputs["input_ids"])


def test_a_turn_end_in_the_prompt_does_not_end_the_answer(pair: ModelPair) -> None:
    """Only a generated turn end stops generation, not one in the prompt."""
    inputs = make_inputs([ONE_IMAGE])
    assert TURN_END in inputs["input_ids"]
    forced = torch.full((1, VOCABULARY), float("-inf"))
    forced[0, TURN_END] = 0.0
    processors = LogitsProcessorList([lambda input_ids, scores: forced.expand_as(scores)])
    out = pair.compressed.generate(**inputs, max_new_tokens=9, logits_processor=processors)
    assert answer(out, inputs).tolist() == [[TURN_END]]
