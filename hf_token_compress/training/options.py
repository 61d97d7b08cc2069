"""Options of collecting and training.

This module does not import torch, so that the command line's help answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config import DEFAULT_RULE, InstructionScope, Modality, Network, Targets
from ..data.answers import Match
from ..options import check_options, documented


@documented
@dataclass(frozen=True)
class CollectOptions:
    """How to collect.

    `match` may also be a function of the given and the right answer.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range, or none of its choices.
    """

    modality: Modality = field(
        default="image", metadata={"help": "Samples of the other modality are skipped."}
    )
    shard_size: int = field(
        default=64,
        metadata={
            "help": "Samples a shard. A stopped run repeats at most one shard per process.",
            "interval": "[1, inf)",
        },
    )
    batch_size: int = field(
        default=16,
        metadata={"help": "Samples that go through the model at once.", "interval": "[1, inf)"},
    )
    max_new_tokens: int = field(
        default=64, metadata={"help": "Longest answer, in tokens.", "interval": "[1, inf)"}
    )
    max_prompt_tokens: int | None = field(
        default=None,
        metadata={
            "help": (
                "Longest prompt, in tokens. Longer ones are skipped; so are prompts that with "
                "their longest answer exceed the model's positions."
            ),
            "interval": "[1, inf)",
        },
    )
    match: Match = field(
        default="exact",
        metadata={
            "help": (
                "Which answers count as right. exact: equal but for case, outer spaces and a full "
                "stop; contains: the right answer occurs in it."
            ),
        },
    )
    rule: str = field(default=DEFAULT_RULE, metadata={"help": "Name of the relevance rule."})
    rule_options: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "Keyword arguments of the relevance rule."}
    )
    targets: Targets = field(
        default="per_token",
        metadata={
            "help": (
                "What is explained. per_token: the mean over the answer's tokens; sum: all tokens "
                "at once, with a single backward pass."
            ),
        },
    )
    recursive: bool = field(
        default=False,
        metadata={"help": "Explain again after each removal of the least relevant tokens."},
    )
    instruction: InstructionScope = field(
        default="last_turn",
        metadata={"help": "Text that asks the question, as in TokenCompressionConfig."},
    )
    scoring_depth: int = field(
        default=0,
        metadata={
            "help": (
                "Decoder layers that run before the one whose attention is collected. It must be "
                "fewer than the model has."
            ),
            "interval": "[0, inf)",
        },
    )

    def __post_init__(self) -> None:
        check_options(self)

    def to_dict(self) -> dict[str, Any]:
        """All options as JSON types."""
        match: Any = self.match
        if callable(match):
            # A `functools.partial`, for one, has no name of its own.
            match = getattr(match, "__qualname__", type(match).__qualname__)
        return {**asdict(self), "match": match}


@documented
@dataclass(frozen=True)
class TrainOptions:
    """How to train. The defaults follow the paper where it gives a value.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range, or none of its choices.
    """

    network: Network = field(default="grid", metadata={"help": "conv1d (the paper's) or grid."})
    network_options: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Keyword arguments of the network, such as channels=32."},
    )
    mask_ratio: float = field(
        default=0.5,
        metadata={
            "help": "Share of the least relevant tokens that the label sets to zero.",
            "interval": "[0, 1)",
        },
    )
    temperature: float = field(
        default=1.0,
        metadata={"help": "Temperature of the label. Below 1 it sharpens.", "interval": "(0, inf)"},
    )
    epochs: int = field(
        default=100, metadata={"help": "Most passes over the data.", "interval": "[1, inf)"}
    )
    batch_size: int = field(
        default=128,
        metadata={"help": "Samples a step, over all processes.", "interval": "[1, inf)"},
    )
    learning_rate: float = field(
        default=2e-3,
        metadata={
            "help": "Highest learning rate. It falls along a cosine to zero.",
            "interval": "(0, inf)",
        },
    )
    warmup_ratio: float = field(
        default=0.05,
        metadata={
            "help": "Share of the steps in which the learning rate rises.",
            "interval": "[0, 1]",
        },
    )
    validation_fraction: float = field(
        default=0.1,
        metadata={
            "help": "Share of the samples that only measure. At least one sample does.",
            "interval": "(0, 1)",
        },
    )
    patience: int = field(
        default=20,
        metadata={
            "help": "Epochs without a lower validation loss before training stops.",
            "interval": "[1, inf)",
        },
    )
    keep_best: bool = field(
        default=True,
        metadata={
            "help": (
                "Keep the epoch with the lowest validation loss. Otherwise train to the end and "
                "keep the last: for few samples, where that loss is mostly chance."
            ),
        },
    )
    weight_decay: float = field(
        default=0.0, metadata={"help": "Weight decay of AdamW. 0 is Adam.", "interval": "[0, inf)"}
    )
    random_flip: bool = field(
        default=False, metadata={"help": "Flip and transpose the grids at random. For few samples."}
    )
    head_dropout: float = field(
        default=0.0,
        metadata={
            "help": "Probability of hiding each attention head. For few samples.",
            "interval": "[0, 1)",
        },
    )
    noise: float = field(
        default=0.0,
        metadata={
            "help": "Standard deviation of the noise on the log attention. For few samples.",
            "interval": "[0, inf)",
        },
    )
    # Seeds of epochs are computed from it and must fit into 64 bits.
    seed: int = field(
        default=0,
        metadata={
            "help": "Seed of the weights, the split, the order and the augmentation.",
            "interval": "[0, 4294967296)",
        },
    )

    def __post_init__(self) -> None:
        check_options(self)

    def to_dict(self) -> dict[str, Any]:
        """All options as JSON types."""
        return {**asdict(self), "network_options": dict(self.network_options)}


_FORMER_NAMES = {
    "masked_share": "mask_ratio",
    "warm_up": "warmup_ratio",
    "held_out": "validation_fraction",
    "mirror": "random_flip",
}


def current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Stored options under the names that they have now."""
    return {_FORMER_NAMES.get(name, name): value for name, value in settings.items()}
