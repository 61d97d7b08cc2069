"""Training on compressed prompts: losses, gradients, and the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pairs import ModelPair, assert_same, make_pair, masked_inputs
from tiny_models import ONE_IMAGE, PADDING, RAGGED, TWO_IMAGES, TWO_TURNS, make_inputs
from torch import Tensor
from transformers import Trainer, TrainingArguments

from hf_token_compress import prepare_inputs

pytestmark = pytest.mark.core


def training_inputs(prompts: Any = RAGGED, padding_side: Any = "right") -> dict[str, Tensor]:
    """A batch with labels on the last four tokens of every sample."""
    inputs = make_inputs(prompts, padding_side=padding_side)
    real = inputs["attention_mask"].bool()
    from_end = real.flip(1).cumsum(1).flip(1)
    inputs["labels"] = torch.where(real & (from_end <= 4), inputs["input_ids"], -100)
    return inputs


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_loss_equals_the_stock_loss_on_prepared_inputs(padding_side: Any, pair: ModelPair) -> None:
    inputs = training_inputs(padding_side=padding_side)
    prepared = prepare_inputs(pair.compressed, **inputs)
    assert_same(pair.compressed(**inputs).loss, pair.stock(**prepared).loss)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_loss_equals_the_stock_loss_with_dropped_tokens_hidden(
    padding_side: Any, pair: ModelPair
) -> None:
    inputs = training_inputs(padding_side=padding_side)
    loss = pair.compressed(**inputs).loss
    expected = pair.stock(**masked_inputs(pair, inputs)).loss
    assert_same(loss, expected)
    assert (pair.stock(**inputs).loss - expected).abs() > 1e-3


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_keep_all_loss_and_gradients_equal_stock(padding_side: Any) -> None:
    stock, compressed = make_pair()
    inputs = training_inputs(padding_side=padding_side)
    losses = [stock(**inputs).loss, compressed(**inputs, token_compression=1.0).loss]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    gradients = dict(compressed.named_parameters())
    for name, parameter in stock.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, msg=name)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_those_with_dropped_tokens_hidden(
    checkpointing: bool, pair: ModelPair
) -> None:
    """Through the kept features, they reach the vision tower too."""
    inputs = training_inputs()
    if checkpointing:
        new_name = getattr(pair.compressed, "activation_checkpointing_enable", None)
        (new_name or pair.compressed.gradient_checkpointing_enable)()
        pair.compressed.train()
    pair.compressed(**inputs).loss.backward()
    pair.stock(**masked_inputs(pair, inputs)).loss.backward()
    expected = dict(pair.stock.named_parameters())
    for name, parameter in pair.compressed.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-4, msg=name
        )
    tower = pair.compressed.model.visual.patch_embed.proj.weight
    assert tower.grad.abs().max() > 1e-3


def test_the_answer_does_not_affect_the_scores(pair: ModelPair) -> None:
    """Labelled tokens are the answer, so they must not count as instruction."""
    inputs = training_inputs([ONE_IMAGE], "left")
    pair.compressed(**inputs)
    expected = pair.compressed.token_compression.last.samples[0]
    inputs["input_ids"][:, -4:] = (inputs["input_ids"][:, -4:] + 17) % 80
    inputs["labels"][:, -4:] = inputs["input_ids"][:, -4:]
    pair.compressed(**inputs)
    sample = pair.compressed.token_compression.last.samples[0]
    assert torch.equal(sample.kept_indices, expected.kept_indices)
    assert torch.equal(sample.scores, expected.scores)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_fully_labelled_samples_are_scored_as_unlabelled_ones(
    padding_side: Any, pair: ModelPair
) -> None:
    inputs = training_inputs(RAGGED, padding_side)
    pair.compressed(**{name: value for name, value in inputs.items() if name != "labels"})
    expected = pair.compressed.token_compression.last.samples
    hidden = (inputs["attention_mask"] == 0) | (inputs["mm_token_type_ids"] != 0)
    inputs["labels"] = inputs["input_ids"].masked_fill(hidden, -100)
    pair.compressed(**inputs)
    samples = pair.compressed.token_compression.last.samples
    for sample, unlabelled in zip(samples, expected, strict=True):
        assert torch.equal(sample.kept_indices, unlabelled.kept_indices)


def test_the_trainer_trains_on_compressed_prompts(tmp_path: Path) -> None:
    stock, compressed = make_pair()
    samples = [training_inputs([prompt]) for prompt in (ONE_IMAGE, TWO_TURNS, TWO_IMAGES)]

    def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return items[0]

    expected = [stock(**prepare_inputs(compressed, **sample)).loss.item() for sample in samples]
    before = compressed.model.visual.patch_embed.proj.weight.clone()
    trainer = Trainer(
        model=compressed,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            num_train_epochs=1,
            learning_rate=1e-3,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            prediction_loss_only=True,
        ),
        train_dataset=samples,
        eval_dataset=samples,
        data_collator=collate,
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(expected) / 3, rel=1e-4)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert min(abs(losses[0] - loss) for loss in expected) < 1e-3
    assert not torch.equal(compressed.model.visual.patch_embed.proj.weight, before)


def test_padding_is_never_a_placeholder(pair: ModelPair) -> None:
    prepared = prepare_inputs(pair.compressed, **training_inputs())
    padding = prepared["attention_mask"] == 0
    assert padding.any()
    assert set(prepared["input_ids"][padding].tolist()) == {PADDING}
    assert set(prepared["labels"][padding].tolist()) == {-100}
