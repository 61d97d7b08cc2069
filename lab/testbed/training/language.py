"""Train the language model's LoRA adapter, the projector and the newline on packed questions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...tiny.architecture import StockModel
from ...tiny.forward import answer_loss
from ...tiny.loop import LoopSettings, train
from ...tiny.scoring import accuracy_by_kind, percent
from .curriculum import Curriculum, TrainingBatch
from .data_loader import StepLoader
from .vision import clip_tokens, image_tokens, tower_features
from .words import ObjectVocabulary

RANK = 16
ALPHA = 32
DESCRIPTION_WEIGHT = 0.1
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora_config() -> Any:
    """The adapter's PEFT configuration."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")


def add_adapter(model: StockModel, seed: int = 0) -> nn.ParameterDict:
    """Add an untrained adapter to the language model and freeze everything that is not trained.

    Args:
        model: The testbed.
        seed: Seed of the adapter's weights; torch's global generator does not change.

    Returns:
        The trained parameters (adapter, projector and newline) in float32, by their names with "/"
        instead of ".".
    """
    from peft import inject_adapter_in_model

    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora_config(), model.model.language_model)
    model.model.multi_modal_projector.float().requires_grad_(True)
    newline = model.model.image_newline
    newline.data = newline.data.float()
    newline.requires_grad_(True)
    trained = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        if parameter.requires_grad:
            trained[name.replace(".", "/")] = parameter
    return nn.ParameterDict(trained)


def visual_tokens(
    model: StockModel, processor: Any, batch: TrainingBatch, words: ObjectVocabulary
) -> tuple[Tensor, Tensor | None]:
    """Visual tokens of a batch, as the language model sees them.

    Returns:
        Visual tokens [B, V, D], and the projector's output [B * F, N, D], or None for ideal tokens.
    """
    if batch.view != "images":
        patches, described = words.ideal(batch.names, batch.colours), None
        if batch.view == "bare":
            return patches, None
    else:
        features = tower_features(model, processor, batch.pixels)
        patches = model.model.multi_modal_projector(features.float()).float()
        described = patches
    if batch.frames:
        return clip_tokens(model, patches, batch.frames), described
    return image_tokens(model, patches), described


def train_language(
    model: StockModel,
    processor: Any,
    curriculum: Curriculum,
    validation: Mapping[str, TrainingBatch],
    settings: LoopSettings,
    work: Path,
    workers: int = 0,
) -> None:
    """Train the adapter, the projector and the newline, in place.

    Args:
        model: The testbed with a warmed-up projector, on the device to train on.
        processor: Its processor.
        curriculum: Batch of each update.
        validation: Batches by name, on which accuracy is reported.
        settings: Schedule.
        work: Folder for the checkpoint and for `curve.jsonl`, with one line per report.
        workers: Processes that prepare batches.
    """
    trained = add_adapter(model)
    device = model.get_input_embeddings().weight.device
    words = ObjectVocabulary(processor.tokenizer, model.get_input_embeddings().weight)
    loader = StepLoader(curriculum, workers)

    def loss_of_step(step: int) -> Tensor:
        batch = loader(step).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            tokens, patches = visual_tokens(model, processor, batch, words)
            loss = answer_loss(model, tokens, batch.packed, batch.early_weight)
        if patches is None:
            return loss
        described = words.loss(patches, batch.names, batch.colours)
        return loss + DESCRIPTION_WEIGHT * described

    @torch.no_grad()
    def report(step: int) -> str:
        accuracies = {}
        for title, batch in validation.items():
            moved = batch.to(device)
            with torch.autocast(device.type, torch.bfloat16):
                tokens, _ = visual_tokens(model, processor, moved, words)
                accuracies[title] = accuracy_by_kind(model, tokens, moved.packed, moved.asked)
        with (work / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **accuracies}) + "\n")
        lines = [f"{title}: {percent(found)}" for title, found in accuracies.items()]
        return "\n  " + "\n  ".join(lines)

    train(trained, loss_of_step, settings, work / "language.pt", report)
