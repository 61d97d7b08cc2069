"""Train the projector to describe each patch's object in word embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...tiny.architecture import StockModel
from ...tiny.loop import LoopSettings, train
from .data_loader import StepLoader
from .sources import Source, random_source
from .vision import tower_features
from .words import BACKGROUND, ObjectVocabulary, labelled_pixels


class LabelledImages(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pixels and patch classes of each update; they depend on the number of the update only.

    Args:
        sources: Sources other than drawings, with the share of each.
        steps: Number of updates.
        patches: Patches per side of an image.
        images: Images per update.
        seed: Seed of all random choices.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Source, float]],
        steps: int,
        patches: int = 16,
        images: int = 32,
        seed: int = 5,
    ) -> None:
        self._sources, self._steps, self._patches = sources, steps, patches
        self._images, self._seed = images, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([self._seed, step])
        # The language model's training uses other numbers.
        first = (1 << 32) + step * self._images
        sources = [random_source(rng, self._sources) for _ in range(self._images)]
        shown = [source(first + i) for i, source in enumerate(sources)]
        return labelled_pixels(shown, self._patches)


def warm_up_projector(
    model: StockModel,
    processor: Any,
    images: LabelledImages,
    validation: dict[str, tuple[Tensor, Tensor, Tensor]],
    settings: LoopSettings,
    checkpoint: Path,
    workers: int = 0,
) -> None:
    """Train the projector, in place, in float32.

    Args:
        model: The testbed, on the device to train on.
        processor: Its processor.
        images: Pixels and classes of each update.
        validation: Pixels and classes by name of a source, as in `images`.
        settings: Schedule.
        checkpoint: File to write to and to resume from.
        workers: Processes that make images.
    """
    projector = model.model.multi_modal_projector.float()
    words = ObjectVocabulary(processor.tokenizer, model.get_input_embeddings().weight)
    loader = StepLoader(images, workers)
    if not checkpoint.exists():
        _standardise(projector.linear_1, tower_features(model, processor, images[0][0]))

    def loss_of_step(step: int) -> Tensor:
        pixels, names, colours = (part.to(words.centre.device) for part in loader(step))
        features = tower_features(model, processor, pixels).float()
        with torch.autocast(features.device.type, torch.bfloat16):
            tokens = projector(features)
        return words.loss(tokens.float(), names, colours)

    @torch.no_grad()
    def report(step: int) -> str:
        parts = []
        for title, labelled in validation.items():
            pixels, names, colours = (part.to(words.centre.device) for part in labelled)
            tokens = projector(tower_features(model, processor, pixels).float())
            shown = names != BACKGROUND
            name = words.name_scores(tokens[shown]).argmax(-1) == names[shown]
            colour = words.colour_scores(tokens[shown]).argmax(-1) == colours[shown]
            shares = [100 * right.float().mean() for right in (name, colour)]
            parts.append("{}: names {:.0f} colours {:.0f}".format(title, *shares))
        return " | ".join(parts)

    train(projector, loss_of_step, settings, checkpoint, report)


@torch.no_grad()
def _standardise(linear: torch.nn.Linear, features: Tensor) -> None:
    """Fold a standardisation of the features (mean 0, deviation 1) into a new layer."""
    flat = features.float().flatten(0, -2)
    mean, deviation = flat.mean(0), flat.std(0) + 1e-3
    linear.weight.copy_(linear.weight / deviation)
    linear.bias.sub_(linear.weight @ mean)
