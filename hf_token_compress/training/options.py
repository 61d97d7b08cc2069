"""Options of collecting and training.

This module does not import torch, so that the command line's help answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..config import (
    DEFAULT_RULE,
    INSTRUCTION_HELP,
    InstructionScope,
    MapperInputName,
    Modality,
    Network,
    Targets,
)
from ..data.metrics import METRICS, MetricOption
from ..options import check_options, documented, option


@documented
@dataclass(frozen=True)
class CollectOptions:
    """How to collect.

    `metric` may also be a function of the given and the right answer, which returns a score in
    [0, 1], or whether the answer is right.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range, or none of its choices.
    """

    modality: Modality = option("image", "Samples of the other modality are skipped.")
    shard_size: int = option(
        64, "Samples per shard. A stopped run repeats at most one shard per process.", "[1, inf)"
    )
    batch_size: int = option(16, "Samples that go through the model at once.", "[1, inf)")
    max_new_tokens: int = option(64, "Longest answer, in tokens.", "[1, inf)")
    max_prompt_tokens: int | None = option(
        None,
        "Longest prompt, in tokens. Longer ones are skipped; so are prompts that with their "
        "longest answer exceed the model's positions.",
        "[1, inf)",
    )
    metric: MetricOption = option(
        "auto",
        "How answers are scored; at least 0.5 counts as right. "
        + " ".join(f'"{item.name}": {item.help}.' for item in METRICS.values())
        + ' "auto": "choice" for questions with choices, else "exact".',
    )
    rule: str = option(DEFAULT_RULE, "Name of the relevance rule.")
    rule_options: Mapping[str, Any] = option({}, "Keyword arguments of the relevance rule.")
    targets: Targets = option(
        "per_token",
        'What is explained. "per_token": the mean over the answer\'s tokens; "sum": all tokens '
        "at once, with a single backward pass.",
    )
    recursive: bool = option(
        False, "Explain again after each removal of the least relevant tokens."
    )
    instruction: InstructionScope = option("last_turn", INSTRUCTION_HELP)
    scoring_depth: int = option(
        0,
        "Decoder layers that run before the one whose attention is collected. It must be fewer "
        "than the model has.",
        "[0, inf)",
    )
    frames: int | None = option(
        8,
        "Frames to take from each video file or folder. Some processors round the number. None "
        "leaves it to the processor.",
        "[1, inf)",
    )

    def __post_init__(self) -> None:
        check_options(self)

    def to_dict(self) -> dict[str, Any]:
        """All options as JSON types; `frames` only where it counts."""
        metric: Any = self.metric
        if callable(metric):
            # A `functools.partial`, for one, has no name of its own.
            metric = getattr(metric, "__qualname__", type(metric).__qualname__)
        found = {**asdict(self), "metric": metric}
        if self.modality == "image" or self.frames is None:
            del found["frames"]
        return found


@documented
@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults follow the paper where it gives a value.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range, or none of its choices.
    """

    network: Network = option("grid", '"conv1d" (the paper\'s) or "grid".')
    network_options: Mapping[str, Any] = option(
        {}, "Keyword arguments of the network, such as channels=32."
    )
    inputs: tuple[MapperInputName, ...] | None = option(
        None,
        "What the network sees. By default all that the collections hold; of conv1d, the paper's "
        "attention only.",
    )
    mask_ratio: float = option(
        0.5, "Share of the least relevant tokens that the label sets to zero.", "[0, 1)"
    )
    temperature: float = option(1.0, "Temperature of the label. Below 1 it sharpens.", "(0, inf)")
    epochs: int = option(100, "Most passes over the data.", "[1, inf)")
    train_batch_size: int = option(128, "Samples per step, over all processes.", "[1, inf)")
    learning_rate: float = option(
        2e-3, "Highest learning rate. It falls along a cosine to zero.", "(0, inf)"
    )
    warmup_ratio: float = option(
        0.05, "Share of the steps in which the learning rate rises.", "[0, 1]"
    )
    validation_fraction: float = option(
        0.1, "Share of the samples that only measure. At least one sample does.", "(0, 1)"
    )
    patience: int = option(
        20, "Epochs without a lower validation loss before training stops.", "[1, inf)"
    )
    keep_best: bool = option(
        True,
        "Keep the epoch with the lowest validation loss. Otherwise train to the end and keep the "
        "last: for few samples, where that loss is mostly chance.",
    )
    weight_decay: float = option(0.0, "Weight decay of AdamW. 0 is Adam.", "[0, inf)")
    random_flip: bool = option(False, "Flip and transpose the grids at random. For few samples.")
    head_dropout: float = option(
        0.0,
        "Probability of hiding each attention head, and each channel of the other inputs. For few "
        "samples.",
        "[0, 1)",
    )
    noise: float = option(
        0.0,
        "Standard deviation of the noise on the log attention, and on the other inputs, which are "
        "standardised. For few samples.",
        "[0, inf)",
    )
    # Seeds of epochs are computed from it and must fit into 64 bits.
    seed: int = option(
        0, "Seed of the weights, the split, the order and the augmentation.", "[0, 4294967296)"
    )

    def __post_init__(self) -> None:
        check_options(self)

    def to_dict(self) -> dict[str, Any]:
        """All options as JSON types."""
        found = {**asdict(self), "network_options": dict(self.network_options)}
        # Runs of earlier versions have no inputs, and may be continued.
        if self.inputs is None:
            del found["inputs"]
        return found


_FORMER_NAMES = {
    "batch_size": "train_batch_size",
    "masked_share": "mask_ratio",
    "warm_up": "warmup_ratio",
    "held_out": "validation_fraction",
    "mirror": "random_flip",
}


def current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Stored options under the names that they have now."""
    return {_FORMER_NAMES.get(name, name): value for name, value in settings.items()}
