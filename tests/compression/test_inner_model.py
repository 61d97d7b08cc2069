"""The model under the head of a compressed model, called directly as some trainers do."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from errors import one_sentence
from pairs import QUARTER, ModelPair, assert_same, carried, make_pair, masked_inputs
from tiny_models import FAMILIES, ONE_IMAGE, RAGGED, TEXT_ONLY, make_inputs, tiny_model
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.cache_utils import Cache

from hf_token_compress import compress, uncompress

pytestmark = pytest.mark.core

each_family = pytest.mark.parametrize("family", FAMILIES)
each_side = pytest.mark.parametrize("padding_side", ["left", "right"])


def inner_states(model: Any, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    return model.base_model(**inputs, **options).last_hidden_state


@each_family
@each_side
def test_its_states_have_the_callers_width(family: Any, padding_side: Any) -> None:
    """A dropped token's place repeats the state of the nearest kept token to its left."""
    pair = make_pair(family=family)
    inputs = make_inputs(RAGGED, family=family, padding_side=padding_side)
    output = pair.compressed.base_model(**inputs, output_hidden_states=True)
    expected = pair.stock.base_model(**masked_inputs(pair, inputs)).last_hidden_state
    states = output.last_hidden_state
    assert {tuple(layer.shape) for layer in output.hidden_states} == {tuple(expected.shape)}
    for number, sample in enumerate(pair.compressed.token_compression.last.samples):
        assert len(sample.kept_indices) < inputs["attention_mask"][number].sum() or not len(
            sample.visual_indices
        )
        kept = set(sample.kept_indices.tolist())
        nearest = -1
        for position in range(states.shape[1]):
            nearest = position if position in kept else nearest
            own = expected[number, nearest] if nearest >= 0 else torch.zeros(states.shape[2])
            assert_same(states[number, position], own)


@each_family
def test_the_head_on_its_states_gives_the_loss_and_gradients(family: Any) -> None:
    _, compressed = make_pair(family=family)
    other = copy.deepcopy(compressed)
    inputs = make_inputs([ONE_IMAGE], family=family)
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    # The answer counts as instruction where no labels are passed: mark the same tokens.
    mask = torch.zeros_like(labels).bool()
    mask[:, -7:-4] = True
    loss = compressed(**inputs, labels=labels, instruction_mask=mask).loss
    loss.backward()
    logits = other.lm_head(inner_states(other, inputs, instruction_mask=mask))
    targets = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    own = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    own.backward()
    assert_same(own, loss)
    expected = dict(compressed.named_parameters())
    for name, parameter in other.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6, msg=name
            )


def test_tuples_hold_wide_states_too(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    states, *_ = pair.compressed.base_model(**inputs, return_dict=False)
    assert torch.equal(states, inner_states(pair.compressed, inputs))


def test_it_shares_setting_report_and_switch_with_the_head(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    model = pair.compressed
    assert model.base_model.token_compression is model.token_compression
    inner_states(model, inputs)
    assert model.token_compression.last.samples[0].visual_tokens_after == 12
    with model.token_compression.disabled():
        assert torch.equal(inner_states(model, inputs), inner_states(pair.stock, inputs))
    compress(model, {**QUARTER.to_dict(), "retention_ratio": 0.5})
    inner_states(model, inputs)
    assert model.token_compression.last.samples[0].visual_tokens_after == 24


def test_text_is_left_as_it_is(pair: ModelPair) -> None:
    inputs = make_inputs([TEXT_ONLY])
    assert torch.equal(inner_states(pair.compressed, inputs), inner_states(pair.stock, inputs))


@each_side
def test_its_cache_remembers_the_compressed_prompt(padding_side: Any, pair: ModelPair) -> None:
    """The next tokens may go to the inner model or through the head."""
    inputs = make_inputs(RAGGED, padding_side=padding_side)
    model = pair.compressed
    more = torch.tensor([[11, 12]] * len(RAGGED))
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(more)], 1)
    with torch.no_grad():
        found = []
        for fill, go_on in (
            (model, model),
            (model.base_model, model.base_model),
            (model.base_model, model),
        ):
            output = fill(**inputs, use_cache=True)
            cache = next(value for value in output.values() if isinstance(value, Cache))
            output = go_on(more, attention_mask=mask, **carried(cache))
            states = output.get("last_hidden_state")
            found.append(output.logits if states is None else model.lm_head(states))
    for logits in found[1:]:
        assert_same(logits, found[0])


def test_only_this_instance_changes_and_uncompress_undoes_it() -> None:
    stock, compressed = make_pair()
    inputs = make_inputs([ONE_IMAGE])
    cls = type(stock.base_model)
    forward = cls.forward
    signature = inspect.signature(stock.base_model.forward)
    assert inspect.signature(compressed.base_model.forward) == signature
    assert isinstance(compressed.base_model, cls)
    assert type(tiny_model().base_model) is cls
    uncompress(compressed)
    assert type(compressed.base_model) is cls
    assert vars(compressed.base_model).keys() == vars(stock.base_model).keys()
    assert cls.forward is forward
    assert torch.equal(inner_states(compressed, inputs), inner_states(stock, inputs))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_keep_it(copied: Any, pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    expected = inner_states(pair.compressed, inputs)
    other = copied(pair.compressed)
    assert torch.equal(inner_states(other, inputs), expected)
    assert other.base_model.token_compression is other.token_compression
    assert other.token_compression is not pair.compressed.token_compression
    assert other.token_compression.last.samples[0].visual_tokens_after == 12


def test_saved_and_loaded(tmp_path: Path, pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    pair.compressed.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert torch.equal(inner_states(loaded, inputs), inner_states(pair.compressed, inputs))
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path, token_compression=False)
    assert torch.equal(inner_states(plain, inputs), inner_states(pair.stock, inputs))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_under_lora() -> None:
    peft = pytest.importorskip("peft")
    stock, compressed = make_pair()
    inputs = make_inputs([ONE_IMAGE])
    expected = inner_states(compressed, inputs)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    wrapped = peft.get_peft_model(compressed, config)
    assert_same(inner_states(wrapped.base_model.model, inputs), expected)
    merged = wrapped.merge_and_unload()
    assert_same(inner_states(merged, inputs), expected)
    uncompress(merged)
    assert_same(inner_states(merged, inputs), inner_states(stock, inputs))


@pytest.fixture
def trained_pair(pair: ModelPair) -> ModelPair:
    """Two compressed models; the forward of the second calls the inner model, as TRL's does."""
    model = copy.deepcopy(pair.compressed)
    original = model.forward

    def forward(self: Any, *args: Any, fused: bool = False, **kwargs: Any) -> Any:
        if not fused:
            return original(*args, **kwargs)
        labels = kwargs.pop("labels")
        output = self.base_model(*args, **kwargs)
        return output.last_hidden_state, labels

    model.forward = MethodType(forward, model)
    return ModelPair(pair.compressed, model)


@pytest.mark.parametrize("copied", [False, True])
def test_a_replaced_forward_tells_the_inner_model_of_the_answer(
    copied: bool, trained_pair: ModelPair
) -> None:
    plain, model = trained_pair
    if copied:
        model = copy.deepcopy(model)
    inputs = make_inputs([ONE_IMAGE])
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    plain(**inputs, labels=labels)
    expected = plain.token_compression.last.samples[0]
    states, taken = model(**inputs, labels=labels, fused=True)
    sample = model.token_compression.last.samples[0]
    assert taken is labels
    assert states.shape[1] == labels.shape[1]
    assert torch.equal(sample.scores, expected.scores)
    # Labels are those of one call.
    inner_states(model, inputs)
    assert not torch.equal(model.token_compression.last.samples[0].scores, sample.scores)
    with one_sentence(ValueError, "labels", "-100", "visual"):
        model(**inputs, labels=inputs["input_ids"], fused=True)
    with one_sentence(ValueError, "labels must have the shape of input_ids"):
        model(**inputs, labels=labels[:, 1:], fused=True)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """In mixed precision, which is otherwise chosen once a process."""
    AcceleratorState._reset_state()
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state()


@pytest.mark.parametrize("keep_fp32_wrapper", [False, True])
def test_a_forward_in_mixed_precision_compresses_when_it_is_unwrapped(
    keep_fp32_wrapper: bool, accelerator: Accelerator, pair: ModelPair
) -> None:
    inputs = make_inputs([ONE_IMAGE])
    prepared = accelerator.prepare_model(pair.compressed)
    expected = prepared(**inputs).logits
    model = accelerator.unwrap_model(prepared, keep_fp32_wrapper=keep_fp32_wrapper)
    assert model(**inputs).logits.shape == expected.shape
    assert inspect.signature(model.forward) == inspect.signature(pair.stock.forward)


def test_a_replaced_forward_is_left_alone() -> None:
    stock = tiny_model()
    inputs = make_inputs([ONE_IMAGE])
    expected = make_pair().compressed(**inputs).logits
    replaced = stock.base_model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return replaced(*args, **kwargs)

    stock.base_model.forward = forward
    model = compress(stock, QUARTER)
    assert vars(model.base_model)["forward"] is forward
    assert torch.equal(model(**inputs).logits, expected)
