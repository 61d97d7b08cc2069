"""The training loop that all trainings share: schedule, checkpoints, reports."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True)
class LoopSettings:
    """Schedule of a training.

    Attributes:
        steps: Number of updates.
        learning_rate: Peak learning rate.
        warmup: Updates of linear warmup; a cosine decay to 5 % follows.
        weight_decay: AdamW weight decay of matrices.
        save_every: Updates between checkpoints.
        report_every: Updates between reports.
        ema: Decay of the averaged weights; 0 for no averaging.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    save_every: int = 200
    report_every: int = 100
    ema: float = 0.0


def learning_rate(settings: LoopSettings, step: int) -> float:
    """Learning rate of update `step`, counted from 0."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    module: nn.Module,
    loss_of_step: Callable[[int], torch.Tensor],
    settings: LoopSettings,
    checkpoint: Path,
    report: Callable[[int], str],
    frozen: Iterable[str] = (),
) -> None:
    """Train `module` in place; resume from `checkpoint` if it exists.

    Args:
        module: The module to train. At the end it has the averaged weights, if there are any.
        loss_of_step: The loss of an update, given its number. It must depend on nothing else, so
            that a resumed run equals an uninterrupted one.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        report: Returns a line for the log, given the number of the update; it is called with the
            averaged weights in place.
        frozen: Names of parameters not to train.
    """
    frozen = set(frozen)
    trained = {n: p for n, p in module.named_parameters() if n not in frozen}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    groups = [
        {
            "params": [p for p in trained.values() if p.ndim >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in trained.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
    average = {n: p.detach().clone() for n, p in trained.items()} if settings.ema else {}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        average = {name: value.to(trained[name].device) for name, value in saved["average"].items()}
        first = saved["step"]

    start, total = time.monotonic(), 0.0
    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        loss = loss_of_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _update_average(average, trained, min(settings.ema, (1 + step) / (10 + step)))
        total += loss.item()
        done = step + 1
        if done % settings.report_every == 0 or done == settings.steps:
            seconds = (time.monotonic() - start) / (done - first)
            raw = _swap_in(average, trained)
            line = report(done)
            _swap_in(raw, trained)
            mean = total / (((done - first - 1) % settings.report_every) + 1)
            clock = time.strftime("%H:%M:%S")
            print(f"{clock} step {done} loss {mean:.3f} {seconds:.2f} s/step {line}", flush=True)
            total = 0.0
        if done % settings.save_every == 0 or done == settings.steps:
            _save(checkpoint, module, optimizer, average, done)
    _swap_in(average, trained)


def averaged_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """State dict of a checkpoint, with averaged weights if there are any."""
    saved = torch.load(checkpoint, weights_only=True, map_location="cpu")
    return {**saved["module"], **saved["average"]}


@torch.no_grad()
def _update_average(
    average: dict[str, torch.Tensor], trained: dict[str, nn.Parameter], decay: float
) -> None:
    for name, mean in average.items():
        mean.lerp_(trained[name], 1 - decay)


@torch.no_grad()
def _swap_in(
    values: dict[str, torch.Tensor], trained: dict[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Copy `values` into the parameters and return the previous values."""
    before = {name: trained[name].detach().clone() for name in values}
    for name, value in values.items():
        trained[name].copy_(value)
    return before


def _save(
    checkpoint: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, torch.Tensor],
    step: int,
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save(
        {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
        },
        partial,
    )
    os.replace(partial, checkpoint)
