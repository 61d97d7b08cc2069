"""TRL's trainers on a compressed model: they learn what a loop of one's own learns.

Each test trains two steps, and then takes the same steps without TRL: the stock model on the inputs
of `prepare_inputs`, and the trainer's loss spelled out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from matrix import full_only
from pairs import QUARTER
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_token_compress import load_tiny, prepare_inputs
from hf_token_compress.data.scenes import make_scene

trl = pytest.importorskip("trl")

# TRL uses names that newer Transformers renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprecated:FutureWarning")

each_family = pytest.mark.parametrize("family", ["qwen2-vl", full_only("llava-onevision")])
BETA = 0.5
TEMPERATURE = 2.0
QUESTIONS = ("what is left of the coffee ?", "where is the cat , and which colour is behind it ?")
GOOD, BAD = "cherry", "the cat is below the coffee"


class Recorder:
    """The batches that a trainer computes its loss from, and the tokens that were kept of each."""

    def __init__(self, model: Any) -> None:
        self.batches: list[dict[str, Tensor]] = []
        self.kept: list[list[tuple[int, ...]]] = []
        model.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, model: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if kwargs.get("labels") is None:
            return  # a step of `generate`
        tensors = {name: own for name, own in kwargs.items() if isinstance(own, Tensor)}
        self.batches.append({name: own.clone() for name, own in tensors.items()})
        self.kept.append(kept_of(model))


def kept_of(model: Any) -> list[tuple[int, ...]]:
    """Kept tokens of each sample of the last call, a quarter of its visual tokens among them."""
    samples = model.token_compression.last.samples
    for sample in samples:
        assert 4 * sample.visual_tokens_after == sample.visual_tokens_before > 0
    return [tuple(sample.visual_indices[sample.kept_visual].tolist()) for sample in samples]


def message(role: str, text: str, *, image: bool = False) -> list[dict[str, Any]]:
    content = [{"type": "image"}] if image else []
    return [{"role": role, "content": [*content, {"type": "text", "text": text}]}]


def dataset(**answers: str) -> Any:
    """Four prompts of two lengths, with images of two sizes."""
    rows = [
        {
            "images": [make_scene(number, rows=4, columns=4 + 2 * (number % 2)).image],
            "prompt": message("user", QUESTIONS[number % 2], image=True),
            **{name: message("assistant", text) for name, text in answers.items()},
        }
        for number in range(4)
    ]
    return datasets.Dataset.from_list(rows)


def arguments(kind: Any, folder: Path, **options: Any) -> Any:
    return kind(
        str(folder),
        max_steps=2,
        optim="sgd",
        learning_rate=0.01,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        **options,
    )


def learned_logps(model: Any, batch: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Log-probabilities of the labelled tokens by the stock forward, float [B, K], else zero."""
    prepared = prepare_inputs(model, **batch)
    labels = prepared.pop("labels")[:, 1:]
    with model.token_compression.disabled():
        logits = model(**prepared).logits[:, :-1] / temperature
    logps = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return logps.masked_fill(labels == -100, 0.0)


def assert_same_steps(
    trainer: Any, own: Any, batches: Any, loss_of: Callable[..., Any], **options: float
) -> None:
    """The trainer's losses and weights are those of SGD on `loss_of(logps, batch)`."""
    expected = []
    optimizer = torch.optim.SGD(own.parameters(), lr=0.01)
    for batch in batches:
        loss = loss_of(learned_logps(own, batch, **options), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(batches) == len(found) == 2
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    trained = trainer.model
    if isinstance(trained, PeftModel):
        trained = trained.get_base_model()
    weights = dict(trained.named_parameters())
    for name, parameter in own.named_parameters():
        torch.testing.assert_close(weights[name], parameter, rtol=1e-4, atol=1e-5, msg=name)


@each_family
def test_sft(family: str, tmp_path: Path) -> None:
    model, processor = load_tiny(family, token_compression=QUARTER)
    own, recorder = copy.deepcopy(model), Recorder(model)
    trainer = trl.SFTTrainer(
        model,
        arguments(trl.SFTConfig, tmp_path, max_length=None, per_device_train_batch_size=2),
        train_dataset=dataset(completion=BAD),
        processing_class=processor,
    )
    trainer.train()

    def loss_of(logps: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return -logps.sum() / (batch["labels"] != -100).sum()

    assert_same_steps(trainer, own, recorder.batches, loss_of)


@each_family
@pytest.mark.parametrize("lora", [True, full_only(False)], ids=["lora", "all_weights"])
def test_dpo(lora: bool, family: str, tmp_path: Path) -> None:
    """With LoRA, the reference is another adapter of the same model, else another model."""
    model, processor = load_tiny(family, token_compression=QUARTER)
    if lora:
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        model = get_peft_model(model, config)
    own, reference, recorder = copy.deepcopy(model), copy.deepcopy(model), Recorder(model)
    trainer = trl.DPOTrainer(
        model,
        args=arguments(
            trl.DPOConfig,
            tmp_path,
            max_length=None,
            per_device_train_batch_size=2,
            beta=BETA,
            # Of the reference, which is loaded from the model's folder.
            model_init_kwargs=None if lora else {"token_compression": QUARTER},
        ),
        train_dataset=dataset(chosen=GOOD, rejected=BAD),
        processing_class=processor,
    )
    trainer.train()
    batches = recorder.batches
    if lora:
        own, reference = own.get_base_model(), reference.get_base_model()
        batches = batches[::2]  # every other one is for the reference
    for kept in recorder.kept:
        # Both answers to a prompt look at the same tokens.
        assert kept[:2] == kept[2:]

    def loss_of(logps: Tensor, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            before = learned_logps(reference, batch)
        chosen, rejected = (logps - before).sum(1).chunk(2)  # [2] each
        return -logsigmoid(BETA * (chosen - rejected)).mean()

    assert_same_steps(trainer, own, batches, loss_of)


def reward_of(completion: list[int]) -> float:
    return float(sum(completion) % 7)


@each_family
def test_grpo(family: str, tmp_path: Path) -> None:
    """What is generated does not change which tokens are kept to learn from it."""
    model, processor = load_tiny(family, token_compression=QUARTER)
    own, recorder = copy.deepcopy(model), Recorder(model)
    generated: list[set[tuple[int, ...]]] = []

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        generated.append(set(kept_of(model)))  # of `generate`, which ran just before
        return [reward_of(ids) for ids in completion_ids]

    trainer = trl.GRPOTrainer(
        model,
        rewards,
        args=arguments(
            trl.GRPOConfig,
            tmp_path,
            num_generations=2,
            max_completion_length=6,
            per_device_train_batch_size=4,
            temperature=TEMPERATURE,
        ),
        train_dataset=dataset(),
        processing_class=processor,
    )
    trainer.train()
    assert generated == [set(kept) for kept in recorder.kept]
    assert all(len(kept) == 2 for kept in generated)

    def loss_of(logps: Tensor, batch: dict[str, Tensor]) -> Tensor:
        learned = batch["labels"] != -100
        prompts, rewards = [], []
        for ids, answer, real in zip(
            batch["input_ids"], learned, batch["attention_mask"].bool(), strict=True
        ):
            prompts.append(ids[real & ~answer].tolist())
            rewards.append(reward_of(ids[answer].tolist()))
        advantages = []
        for prompt, reward in zip(prompts, rewards, strict=True):
            group = torch.tensor([r for p, r in zip(prompts, rewards, strict=True) if p == prompt])
            advantages.append((reward - group.mean()) / (group.std() + 1e-4))
        weight = torch.stack(advantages)[:, None]  # [B, 1]
        assert weight.abs().max() > 0
        ratio = torch.exp(logps - logps.detach()).masked_fill(logps == 0, 0)
        return -(weight * ratio).sum() / learned.sum()

    assert_same_steps(trainer, own, recorder.batches, loss_of, temperature=TEMPERATURE)
