"""Load any supported checkpoint: a tiny model's name, a Hub id or a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..asking import Checkpoint as Checkpoint
from ..config import SCORING, TokenCompressionConfig
from ..hub import explain_failure, first_line
from .console import working
from .errors import CommandError, wrong_arguments


@dataclass(frozen=True)
class ModelOptions:
    """Which model a command loads, and how."""

    model: str = field(
        default="tiny-qwen2-vl",
        metadata={
            "help": (
                '"tiny-qwen2-vl", "tiny-qwen2-vl-video", "tiny-llava-onevision", "tiny-vila", '
                "a Hub id, or a folder."
            ),
            "metavar": "MODEL",
        },
    )
    dtype: str = field(
        default="auto",
        metadata={
            "help": (
                '"auto" (the checkpoint\'s own, but float32 for float16 on a CPU), "float32", '
                '"bfloat16" or "float16". A CPU without bfloat16 arithmetic is several times '
                "faster in float32."
            ),
            "metavar": "DTYPE",
        },
    )
    device: str | None = field(
        default=None,
        metadata={
            "help": 'Such as "cpu" or "cuda:0". By default the accelerator if there is one.',
            "metavar": "DEVICE",
        },
    )


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint that was found but not loaded: where it is, and its config.json."""

    options: ModelOptions
    location: str
    settings: Mapping[str, Any]

    @property
    def saved_compression(self) -> TokenCompressionConfig | None:
        """The setting that was saved with the model, if any."""
        from ..compression.mixin import CONFIG_KEY
        from ..mapper.resolve import IN_MODEL

        saved = self.settings.get(CONFIG_KEY)
        if saved is None:
            return None
        found = TokenCompressionConfig.from_dict(saved)
        return replace(found, mapper=self.location) if found.mapper == IN_MODEL else found

    @property
    def mapper(self) -> dict[str, Any]:
        """Settings that name the mapper saved with the model, or coming with it; {} for none."""
        from ..tiny import own_mapper

        saved = self.saved_compression
        if saved is not None and saved.mapper is not None:
            return {"mapper": saved.mapper, "mapper_revision": saved.mapper_revision}
        own = own_mapper(self.options.model)
        return {} if own is None else {"mapper": own}

    def merged_compression(
        self, changes: Mapping[str, Any], modalities: Collection[str]
    ) -> TokenCompressionConfig:
        """The setting saved with the model, overridden by what the command line gives.

        Without a saved one, the mapper that comes with the model scores its tokens, if it knows
        all the modalities.

        Raises:
            TypeError, ValueError: A value has the wrong type or is outside its range, or two
                contradict each other.
        """
        saved = self.saved_compression
        if saved is None:
            own = self.mapper if SCORING.isdisjoint(changes) else {}
            if own:
                from ..mapper import load_mappers

                known = load_mappers(own["mapper"]).mappers
                own = own if set(modalities) <= set(known) else {}
            return TokenCompressionConfig(**{**own, **changes})
        if "scorer" in changes or "mapper" in changes:
            # The saved options and mapper do not fit another way of scoring.
            saved = saved.with_scoring()
        return replace(saved, **changes)


def find_checkpoint(options: ModelOptions) -> CheckpointSource:
    """Read the config of a checkpoint and check that its family is supported.

    Raises:
        CommandError: There is no such model, the Hub cannot be reached, its config cannot be
            read, or its family is not supported.
    """
    name = options.model
    with working(f"Looking for {name}"):
        from transformers import PreTrainedConfig
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        )

        from ..models import supported_families
        from ..models.vila.names import ORIGINAL_MODEL_TYPE
        from ..models.vila.original_config import convert_config
        from ..tiny import resolve_model

        location = resolve_model(name)
        if Path(location).exists() and not (Path(location) / "config.json").is_file():
            raise CommandError(f"{name!r} is not a model's folder: it has no config.json.")
        try:
            settings, _ = PreTrainedConfig.get_config_dict(location)
        except OSError as error:
            raise CommandError(explain_failure("model", name, error)) from error
        if settings.get("model_type") == ORIGINAL_MODEL_TYPE:
            settings = convert_config(settings)
    family = settings.get("model_type")
    if family not in (*supported_families(), *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        raise CommandError(
            f"{name!r} has the model type {family!r}, which token compression does not support: "
            f"choose one of {', '.join(supported_families())}."
        )
    return CheckpointSource(options, location, settings)


def load_checkpoint(source: CheckpointSource, compression: TokenCompressionConfig) -> Checkpoint:
    """Load model and processor, the model with compression on it.

    Raises:
        CommandError: There is no such scorer, the device cannot be used, or a file is missing or
            broken.
        ValueError: The mapper does not fit the model.
    """
    name = source.options.model
    # A folder's model is loaded without downloads, which draw progress bars.
    with working(f"Loading {name}", spinner=Path(source.location).is_dir()):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from ..scorers.registry import build_scorer

        if compression.scorer_name != "mapper":
            with wrong_arguments():
                build_scorer(compression.scorer_name, compression.scorer_options)
        check_mappers([compression])
        device = torch_device(source.options.device)
        saved_dtype = source.settings.get("dtype", source.settings.get("torch_dtype"))
        dtype = dtype_name(source.options.dtype, saved_dtype, device)
        try:
            model = AutoModelForImageTextToText.from_pretrained(
                source.location, token_compression=compression, dtype=dtype
            )
            processor = AutoProcessor.from_pretrained(source.location)
        except OSError as error:
            raise CommandError(explain_failure("model", name, error)) from error
        except ImportError as error:
            # Transformers appends where to read on; its first sentence names the package.
            need = first_line(error).split(". ")[0]
            raise CommandError(f"A package that {name!r} needs is missing: {need}.") from error
        try:
            model = model.to(device)
        except (AssertionError, RuntimeError) as error:
            raise CommandError(
                f"The model cannot be put on the device {str(device)!r}: {first_line(error)}"
            ) from error
    return Checkpoint(name, model.eval(), processor)


def check_mappers(settings: Iterable[TokenCompressionConfig]) -> None:
    """Look for the mappers of settings before a model is loaded.

    Raises:
        CommandError: There is no such mapper.
        ValueError: A mapper is damaged.
    """
    from ..mapper import MapperNotFoundError, load_mappers

    for name, revision in {(own.mapper, own.mapper_revision) for own in settings}:
        if name is None:
            continue
        try:
            load_mappers(name, revision)
        except MapperNotFoundError as error:
            raise CommandError(first_line(error)) from error


def dtype_name(dtype: str, saved: Any, device: Any) -> str:
    """The dtype to load a checkpoint in; "auto" for its own.

    Args:
        dtype: As in `ModelOptions`.
        saved: dtype that its config names.
        device: torch device of the model.

    Raises:
        CommandError: There is no such dtype.
    """
    import torch

    if dtype == "auto" and saved == "float16" and device.type == "cpu":
        return "float32"  # half precision is slow on a CPU
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise CommandError(
            f"dtype must be auto, float32, bfloat16 or float16, but it is {dtype!r}.", exit_code=2
        )
    return dtype


def torch_device(name: str | None) -> Any:
    """The device of that name, or by default the accelerator if there is one.

    Raises:
        CommandError: There is no such device.
    """
    import torch

    if name is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    with suppress(RuntimeError):
        device = torch.device(name)
        if device.type != "meta":  # which has no values to compute with
            return device
    raise CommandError(
        f"There is no device {name!r}: choose for instance cpu or cuda:0.", exit_code=2
    )
