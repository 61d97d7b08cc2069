"""The model of a benchmark: a checkpoint, or random weights of its sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import TokenCompressionConfig
from ..hub import explain_failure
from ..options import check_options
from .checkpoint import (
    CheckpointSource,
    ModelOptions,
    dtype_name,
    find_checkpoint,
    load_checkpoint,
    torch_device,
)
from .console import working
from .errors import CommandError, wrong_arguments

if TYPE_CHECKING:
    from ..evaluation.speed import Depth


@dataclass(frozen=True)
class SizeOptions:
    """How the model is made."""

    random_weights: bool = field(
        default=False,
        metadata={
            "help": (
                "Whether to make random weights of the sizes in the model's config instead of "
                "loading it. --model then also takes qwen2-vl-2b and qwen2-vl-7b, which need no "
                "download."
            )
        },
    )
    layers: int | None = field(
        default=None,
        metadata={
            "help": (
                "With --random-weights, decoder layers to make: times are scaled to all of them "
                "by the measured time of a layer. By default all."
            ),
            "interval": "[1, inf)",
        },
    )
    vision_layers: int | None = field(
        default=None,
        metadata={
            "help": (
                "With --random-weights, layers of the vision tower to make: its time is scaled, "
                "too. By default all."
            ),
            "interval": "[1, inf)",
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": 'Such as "sdpa", "eager" or "flash_attention_2". By default the model\'s own.',
            "metavar": "NAME",
        },
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class BenchmarkedModel:
    """A model that was found but not made.

    Attributes:
        options: Which model, and how to load it.
        sizes: How to make it.
        source: The checkpoint; None for random weights.
        config: Configuration of random weights.
        depth: If it has fewer layers than the real model, how many.
        mapper: What the scorer "mapper" stands for; None for random weights.
    """

    options: ModelOptions
    sizes: SizeOptions
    source: CheckpointSource | None
    config: Any
    depth: Depth | None
    mapper: str | None

    @property
    def name(self) -> str:
        """The name that the user gave."""
        return self.options.model

    @property
    def random_weights(self) -> bool:
        """Whether it has random weights."""
        return self.source is None

    def load(self) -> tuple[Any, Any]:
        """Load or make the model: uncompressed, in evaluation mode, with its processor.

        Raises:
            CommandError: The device cannot be used, or a file is missing or broken.
            ImportError: A package that the attention implementation needs is missing.
        """
        if self.source is None:
            model, processor = self._random()
        else:
            from ..compression import uncompress

            found = load_checkpoint(self.source, TokenCompressionConfig(scorer="uniform"))
            model, processor = uncompress(found.model), found.processor
        if self.sizes.attn_implementation is not None:
            model.set_attn_implementation(self.sizes.attn_implementation)
        return model, processor

    def _random(self) -> tuple[Any, Any]:
        import torch

        from ..evaluation.speed.random_model import random_model, read_processor

        with working(f"Making random weights of {self.name}"):
            device = torch_device(self.options.device)
            saved = getattr(self.config, "dtype", None)
            dtype = dtype_name(self.options.dtype, str(saved).removeprefix("torch."), device)
            if dtype == "auto":
                dtype = str(saved or "bfloat16").removeprefix("torch.")
            model = random_model(self.config, dtype=getattr(torch, dtype), device=device)
            try:
                return model, read_processor(self.name)
            except OSError as error:
                raise CommandError(explain_failure("model", self.name, error)) from error


def find_model(options: ModelOptions, sizes: SizeOptions, mapper: str | None) -> BenchmarkedModel:
    """Find the model and check what can be checked before it is made.

    Args:
        options: Which model, and how to load it.
        sizes: How to make it.
        mapper: The mapper that the user named.

    Raises:
        CommandError: There is no such model, it is not supported, or options contradict each
            other.
    """
    _check_attention(sizes.attn_implementation)
    if not sizes.random_weights:
        for name in ("layers", "vision_layers"):
            if getattr(sizes, name) is not None:
                flag = name.replace("_", "-")
                raise CommandError(
                    f"--{flag} needs --random-weights: a trained model runs whole.", exit_code=2
                )
        _refuse_named_size(options.model)
        source = find_checkpoint(options)
        own = source.mapper.get("mapper") if mapper is None else mapper
        return BenchmarkedModel(options, sizes, source, None, None, own)
    if mapper is not None:
        raise CommandError(
            "--mapper does not fit --random-weights: a trained mapper belongs to trained weights, "
            "and a random one takes as long.",
            exit_code=2,
        )
    from ..evaluation.speed.random_model import NAMED_SIZES, read_config, shorten

    if options.model not in NAMED_SIZES:
        find_checkpoint(options)
    try:
        config = read_config(options.model)
    except OSError as error:
        raise CommandError(explain_failure("model", options.model, error)) from error
    with wrong_arguments():
        depth = shorten(config, sizes.layers, sizes.vision_layers)
    return BenchmarkedModel(options, sizes, None, config, depth, None)


def _refuse_named_size(name: str) -> None:
    from ..evaluation.speed.random_model import NAMED_SIZES

    if name in NAMED_SIZES:
        raise CommandError(
            f"{name!r} names sizes and no weights: add --random-weights.", exit_code=2
        )


def _check_attention(name: str | None) -> None:
    from transformers import AttentionInterface

    known = ("eager", *AttentionInterface().valid_keys())
    # Names with a slash are kernels on the Hub.
    if name is not None and name not in known and "/" not in name:
        raise CommandError(
            f"There is no attention implementation {name!r}: choose for instance sdpa or eager.",
            exit_code=2,
        )
