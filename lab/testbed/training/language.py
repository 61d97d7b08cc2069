"""Train a LoRA adapter of the language model, with projector and newline, on packed questions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.testbed.training.curriculum import Lesson, Lessons
from lab.testbed.training.data_loader import Feed
from lab.testbed.training.vision import clip_tokens, picture_tokens, tower_features
from lab.testbed.training.words import ThingVocabulary
from lab.tiny.architecture import StockModel
from lab.tiny.forward import answer_loss
from lab.tiny.loop import LoopSettings, train
from lab.tiny.scoring import accuracy_by_kind, percent

RANK = 16
ALPHA = 32
DESCRIPTION_WEIGHT = 0.1
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora_config() -> Any:
    """The adapter's peft configuration."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")


def add_adapter(model: StockModel, seed: int = 0) -> nn.ParameterDict:
    """Put an untrained adapter into the language model, and freeze all but what is trained.

    Args:
        model: The testbed.
        seed: Of the adapter's first weights; torch's own generator is left as it was.

    Returns:
        All that is trained, by name with "/" for ".": adapter, projector and newline, in float32.
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
    model: StockModel, processor: Any, lesson: Lesson, words: ThingVocabulary
) -> tuple[Tensor, Tensor | None]:
    """What the language model sees of a lesson.

    Returns:
        Visual tokens (B, V, D), and what the projector made of the patches (B * F, N, D), or None
        where the lesson shows ideal tokens.
    """
    if lesson.view != "pictures":
        patches, described = words.ideal(lesson.names, lesson.colours), None
        if lesson.view == "bare":
            return patches, None
    else:
        features = tower_features(model, processor, lesson.pixels)
        patches = model.model.multi_modal_projector(features.float()).float()
        described = patches
    if lesson.frames:
        return clip_tokens(model, patches, lesson.frames), described
    return picture_tokens(model, patches), described


def train_language(
    model: StockModel,
    processor: Any,
    lessons: Lessons,
    validation: Mapping[str, Lesson],
    settings: LoopSettings,
    work: Path,
    workers: int = 0,
) -> None:
    """Train the adapter, the projector and the newline, in place.

    Args:
        model: The testbed with a warmed-up projector, on the device to train on.
        processor: Its processor.
        lessons: What to show and ask.
        validation: By name, lessons to report the accuracy of.
        settings: Schedule.
        work: Folder of the checkpoint, and of `curve.jsonl`, a line a report.
        workers: Processes that make lessons.
    """
    trained = add_adapter(model)
    device = model.get_input_embeddings().weight.device
    words = ThingVocabulary(processor.tokenizer, model.get_input_embeddings().weight)
    feed = Feed(lessons, workers)

    def loss_of_step(step: int) -> Tensor:
        lesson = feed(step).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            tokens, patches = visual_tokens(model, processor, lesson, words)
            loss = answer_loss(model, tokens, lesson.batch, lesson.early_weight)
        if patches is None:
            return loss
        described = words.loss(patches, lesson.names, lesson.colours)
        return loss + DESCRIPTION_WEIGHT * described

    @torch.no_grad()
    def report(step: int) -> str:
        accuracies = {}
        for title, lesson in validation.items():
            moved = lesson.to(device)
            with torch.autocast(device.type, torch.bfloat16):
                tokens, _ = visual_tokens(model, processor, moved, words)
                accuracies[title] = accuracy_by_kind(model, tokens, moved.batch, moved.asked)
        with (work / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **accuracies}) + "\n")
        lines = [f"{title}: {percent(found)}" for title, found in accuracies.items()]
        return "\n  " + "\n  ".join(lines)

    train(trained, loss_of_step, settings, work / "language.pt", report)
