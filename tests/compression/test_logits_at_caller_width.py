"""Logits that are paired with the caller's labels or completions: their width and their places."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from matrix import full_only
from pairs import QUARTER, ModelPair, assert_same, make_pair, masked_inputs
from tiny_models import (
    FAMILIES,
    IMAGE,
    ONE_IMAGE,
    RAGGED,
    TURN_END,
    TWO_IMAGES,
    TWO_TURNS,
    VIDEO,
    make_inputs,
)
from torch import Tensor
from transformers import Trainer, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hf_token_compress import compress, prepare_inputs

pytestmark = pytest.mark.core

each_family = pytest.mark.parametrize("family", FAMILIES)
each_side = pytest.mark.parametrize("padding_side", ["left", "right"])


def labelled(
    prompts: Any = RAGGED, padding_side: Any = "right", family: Any = "qwen2_vl"
) -> dict[str, Tensor]:
    """A batch with labels on all tokens that are neither padding nor visual."""
    inputs = make_inputs(prompts, family=family, padding_side=padding_side)
    ids = inputs["input_ids"]
    hidden = (inputs["attention_mask"] == 0) | (ids == IMAGE) | (ids == VIDEO)
    return {**inputs, "labels": ids.masked_fill(hidden, -100)}


def next_labels(labels: Tensor) -> Tensor:
    """At every token the label of the next one."""
    return torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]


@each_family
@each_side
def test_a_dropped_tokens_place_repeats_the_nearest_kept_one(
    family: Any, padding_side: Any
) -> None:
    pair = make_pair(family=family)
    inputs = labelled(padding_side=padding_side, family=family)
    logits = pair.compressed(**inputs).logits
    expected = pair.stock(**masked_inputs(pair, inputs)).logits
    assert logits.shape == expected.shape
    for number, sample in enumerate(pair.compressed.token_compression.last.samples):
        kept = set(sample.kept_indices.tolist())
        nearest = -1
        for position in range(logits.shape[1]):
            nearest = position if position in kept else nearest
            own = expected[number, nearest] if nearest >= 0 else torch.zeros(logits.shape[2])
            assert_same(logits[number, position], own)


@each_family
@each_side
def test_the_loss_is_stocks_on_prepared_inputs_to_the_bit(family: Any, padding_side: Any) -> None:
    stock, compressed = make_pair(family=family)
    inputs = labelled(padding_side=padding_side, family=family)
    prepared = prepare_inputs(compressed, **inputs)
    assert prepared["labels"].shape[1] < inputs["labels"].shape[1]
    assert torch.equal(compressed(**inputs).loss, stock(**prepared).loss)


@each_side
def test_wide_logits_give_the_loss_with_the_callers_labels(
    padding_side: Any, pair: ModelPair
) -> None:
    """Labels right after an image are predicted from the last of its tokens that is kept."""
    inputs = labelled(padding_side=padding_side)
    output = pair.compressed(**inputs)
    targets = next_labels(inputs["labels"])
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten())
    assert_same(output.loss, loss)


def test_gradients_through_wide_logits_are_those_of_the_loss(pair: ModelPair) -> None:
    inputs = labelled()
    targets = next_labels(inputs["labels"])
    other = copy.deepcopy(pair.compressed)
    pair.compressed(**inputs).loss.backward()
    logits = other(**inputs).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = dict(pair.compressed.named_parameters())
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6, msg=name
        )


def test_labels_of_next_tokens_give_the_same_loss(pair: ModelPair) -> None:
    inputs = labelled()
    expected = pair.compressed(**inputs).loss
    shifted = next_labels(inputs["labels"])
    assert torch.equal(pair.compressed(**inputs, shift_labels=shifted).loss, expected)


def test_tuples_hold_wide_logits_too(pair: ModelPair) -> None:
    inputs = labelled()
    output = pair.compressed(**inputs)
    loss, logits, *_ = pair.compressed(**inputs, return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)


def test_logits_without_labels_keep_the_short_width(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    kept = pair.compressed(**inputs).logits.shape[1]
    assert kept == len(pair.compressed.token_compression.last.samples[0].kept_indices)


def test_labels_on_visual_tokens_are_refused_where_tokens_are_dropped(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    with one_sentence(ValueError, "labels", "-100", "visual"):
        pair.compressed(**inputs, labels=inputs["input_ids"])
    expected = pair.stock(**inputs, labels=inputs["input_ids"]).loss
    kept = pair.compressed(**inputs, labels=inputs["input_ids"], token_compression=1.0).loss
    assert torch.equal(kept, expected)


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_labels_of_the_wrong_shape_are_refused(name: str, ratio: float, pair: ModelPair) -> None:
    inputs = labelled([ONE_IMAGE])
    with one_sentence(ValueError, f"{name} must have the shape of input_ids"):
        wrong = {**inputs, name: inputs["labels"][:, 1:]}
        pair.compressed(**wrong, token_compression=ratio)
    with one_sentence(TypeError, f"{name} must be a tensor"):
        pair.compressed(**{**inputs, name: [1, 2]}, token_compression=ratio)


def test_labels_do_not_go_with_few_logits(pair: ModelPair) -> None:
    with one_sentence(ValueError, "logits_to_keep"):
        pair.compressed(**labelled([ONE_IMAGE]), logits_to_keep=3)


# Completions


def completed(inputs: dict[str, Tensor], completions: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The prompts followed by completions, int64 [B, C], whose padding the mask hides."""
    more = {
        "input_ids": completions,
        "attention_mask": mask.long(),
        "mm_token_type_ids": torch.zeros_like(completions),
    }
    return {
        name: torch.cat([value, more[name]], 1) if name in more else value
        for name, value in inputs.items()
    }


@each_family
@pytest.mark.parametrize(
    "lengths", [pytest.param((5, 2, 4), id="padded_right"), full_only((5, 5, 5), id="padded_left")]
)
@pytest.mark.parametrize("told_by", ["logits_to_keep", "labels"])
def test_a_completion_is_scored_as_it_was_generated(
    told_by: str, lengths: tuple[int, ...], family: Any
) -> None:
    """On the tokens that were kept of the prompt alone: the completion does not choose them."""
    model = make_pair(family=family).compressed
    prompts = make_inputs([ONE_IMAGE, TWO_TURNS, TWO_IMAGES], family=family)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    output = model.generate(**prompts, **options, output_logits=True, return_dict_in_generate=True)
    chosen = model.token_compression.last.samples
    completions = output.sequences[:, -5:]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]  # [B, 5]
    # The end of the turn is the last token that is learned.
    completions[torch.arange(3), torch.tensor(lengths) - 1] = TURN_END
    inputs = completed(prompts, completions, mask)
    if told_by == "labels":
        learned = completions.masked_fill(~mask, -100)
        ignored = torch.full_like(prompts["input_ids"], -100)
        told = {"labels": torch.cat([ignored, learned], 1)}
    else:
        told = {"logits_to_keep": 6}
    with torch.no_grad():
        logits = model(**inputs, **told).logits[:, -6:-1]
    for sample, own in zip(model.token_compression.last.samples, chosen, strict=True):
        assert torch.equal(sample.kept_visual, own.kept_visual)
    assert_same(logits[mask], torch.stack(output.logits, 1)[mask])


def test_logits_of_visual_tokens_tell_of_no_completion(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    pair.compressed(**inputs)
    expected = pair.compressed.token_compression.last.samples[0]
    for count in (1, inputs["input_ids"].shape[1], 500):
        pair.compressed(**inputs, logits_to_keep=count)
        sample = pair.compressed.token_compression.last.samples[0]
        assert torch.equal(sample.scores, expected.scores)


@each_family
@pytest.mark.parametrize("count", [0, 1, 4, 6, 30])
def test_columns_after_the_last_visual_token_stay_one_for_one(family: Any, count: int) -> None:
    """Prompts padded on the left, completions of ragged lengths on the right."""
    pair = make_pair(family=family)
    inputs = make_inputs([ONE_IMAGE, TWO_TURNS, TWO_IMAGES], family=family)
    completions = torch.tensor([[11, 12, 13, 14, 15], [16, 17, 0, 0, 0], [18, 19, 20, 0, 0]])
    inputs = completed(inputs, completions, completions > 0)
    options = {"logits_to_keep": count} if count else {}
    actual = pair.compressed(**inputs, **options).logits
    expected = pair.stock(**masked_inputs(pair, inputs)).logits
    # Two tokens of text stand between the last image of every prompt and its completion.
    for back in range(1, min(count or 7, 7) + 1):
        for number in range(3):
            if inputs["attention_mask"][number, -back]:
                assert_same(actual[number, -back], expected[number, -back])


def test_a_sample_alone_keeps_its_padding(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    for name, value in (("input_ids", 0), ("attention_mask", 0), ("mm_token_type_ids", 0)):
        inputs[name] = torch.nn.functional.pad(inputs[name], (0, 3), value=value)
    found = pair.compressed(**inputs, logits_to_keep=5).logits
    expected = pair.stock(**masked_inputs(pair, inputs)).logits
    assert found.shape[1] == 5
    assert_same(found[:, :2], expected[:, -5:-3])


# Trainer


def trainer_of(model: Any, folder: Path, **options: Any) -> Trainer:
    own = {
        name: options.pop(name)
        for name in ("compute_metrics", "preprocess_logits_for_metrics", "compute_loss_func")
        if name in options
    }
    items = [labelled([prompt]) for prompt in (ONE_IMAGE, TWO_TURNS, TWO_IMAGES)]
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        max_steps=3,
        learning_rate=0.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return Trainer(
        model,
        arguments,
        train_dataset=items,
        eval_dataset=items,
        data_collator=lambda batch: dict(batch[0]),
        **own,
    )


@pytest.mark.filterwarnings("ignore:The trainer takes the labels out")
def test_label_smoothing(tmp_path: Path) -> None:
    """Its loss is that of the stock model on the kept tokens, in training and in evaluation."""
    stock = make_pair().stock
    model = compress(copy.deepcopy(stock), replace(QUARTER, scorer="uniform"))
    trainer = trainer_of(model, tmp_path, label_smoothing_factor=0.1)
    shifted = type(stock).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    expected = []
    with torch.no_grad():
        for item in trainer.train_dataset:
            item["labels"][:, 0] = -100
            prepared = prepare_inputs(model, **item)
            logits, labels = stock(**prepared).logits, prepared["labels"]
            targets = next_labels(labels) if shifted else labels
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1
            )
            expected.append(loss.item())
    evaluated = trainer.evaluate(ignore_keys=["logits", "cache", "past_key_values"])["eval_loss"]
    assert evaluated == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert trainer.train().training_loss == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_a_trainer_that_takes_the_labels_out_is_told_of_the_answer(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    width = inputs["input_ids"].shape[1]
    with pytest.warns(UserWarning, match="instruction_mask"):
        output = pair.compressed(**inputs, num_items_in_batch=torch.tensor(4))
    assert output.logits.shape[1] == width
    mask = inputs["attention_mask"].bool() & (inputs["mm_token_type_ids"] == 0)
    logits, *_ = pair.compressed(
        **inputs, num_items_in_batch=torch.tensor(4), instruction_mask=mask, return_dict=False
    )
    assert logits.shape[1] == width


def test_metrics_see_predictions_at_the_places_of_labels(tmp_path: Path) -> None:
    stock, compressed = make_pair()
    seen = []

    def metrics(evaluated: Any) -> dict[str, float]:
        predicted, labels = evaluated.predictions[:, :-1], evaluated.label_ids[:, 1:]
        assert predicted.shape == labels.shape
        counted = labels != -100
        seen.append(predicted[counted])
        return {"right": float((predicted == labels)[counted].sum())}

    trainer = trainer_of(
        compressed,
        tmp_path,
        compute_metrics=metrics,
        # Newer versions pass all outputs.
        preprocess_logits_for_metrics=lambda outputs, _: (
            outputs[0] if isinstance(outputs, tuple) else outputs
        ).argmax(-1),
    )
    found = trainer.evaluate()["eval_right"]
    expected = []
    with torch.no_grad():
        for item in trainer.eval_dataset:
            prepared = prepare_inputs(compressed, **item)
            answered = prepared["labels"][:, 1:] != -100
            expected += stock(**prepared).logits.argmax(-1)[:, :-1][answered].tolist()
    labels = torch.cat([item["labels"][:, 1:].flatten() for item in trainer.eval_dataset])
    assert seen[0].tolist() == expected
    assert found == (torch.tensor(expected) == labels[labels != -100]).sum()
