"""Load any supported checkpoint: a name of the library's own models, a Hub id or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TokenCompressionConfig
from ..hub import explain_failure, first_line
from .console import quiet_libraries, working
from .errors import CommandError


@dataclass(frozen=True)
class CheckpointSource:
    """Where a checkpoint lies, and what its config.json says.

    Attributes:
        name: What the user called it.
        location: Folder or Hub id.
        settings: The content of its config.json.
    """

    name: str
    location: str
    settings: Mapping[str, Any]

    @property
    def is_local(self) -> bool:
        """Whether nothing has to be downloaded."""
        return Path(self.location).is_dir()

    @property
    def saved_compression(self) -> TokenCompressionConfig | None:
        """The setting that was saved with the model, if any."""
        from ..compression.mixin import CONFIG_KEY

        saved = self.settings.get(CONFIG_KEY)
        return None if saved is None else TokenCompressionConfig.from_dict(saved)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with compression on it, in evaluation mode, and its processor."""

    name: str
    model: Any
    processor: Any


def find_checkpoint(name: str) -> CheckpointSource:
    """Read the config of a checkpoint and check that its family is supported.

    Raises:
        CommandError: There is no such model, the Hub cannot be reached, its config cannot be
            read, or its family is not supported.
    """
    with working(f"Looking for {name}"), quiet_libraries(progress_bars=False):
        from transformers import PreTrainedConfig

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
    if family not in supported_families():
        raise CommandError(
            f"{name!r} has the model type {family!r}, which token compression does not support: "
            f"supported are {', '.join(supported_families())}."
        )
    return CheckpointSource(name, location, settings)


def load_checkpoint(
    source: CheckpointSource,
    compression: TokenCompressionConfig,
    *,
    dtype: str = "auto",
    device: str | None = None,
) -> Checkpoint:
    """Load model and processor, the model with compression on it.

    Args:
        source: What `find_checkpoint` found.
        compression: The setting.
        dtype: A torch dtype's name, or "auto" for the checkpoint's own (float32 instead of
            float16 on a CPU, where half precision is slow).
        device: Where to run; by default the accelerator, or the CPU where there is none.

    Raises:
        CommandError: The device cannot be used, or a file is missing or broken.
        ValueError: The setting does not fit, for instance names an unknown scorer.
    """
    with (
        working(f"Loading {source.name}", spinner=source.is_local),
        quiet_libraries(progress_bars=not source.is_local),
    ):
        import torch

        from ..evaluation.loading import load_model
        from ..mapper import MapperNotFoundError

        target = _torch_device(device)
        saved_dtype = source.settings.get("dtype", source.settings.get("torch_dtype"))
        if dtype == "auto" and saved_dtype == "float16" and target.type == "cpu":
            dtype = "float32"
        if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise CommandError(
                f"{dtype!r} is no dtype: choose auto, float32, bfloat16 or float16.", exit_code=2
            )
        try:
            # Auto classes put the keyword on the config where config.json has that entry already,
            # and write the config to the log: only the dict is JSON.
            model, processor = load_model(
                source.location, token_compression=compression.to_dict(), dtype=dtype
            )
        except MapperNotFoundError as error:
            raise CommandError(first_line(error)) from error
        except OSError as error:
            raise CommandError(explain_failure("model", source.name, error)) from error
        except ImportError as error:
            # Transformers appends where to read on; its first sentence names the package.
            need = first_line(error).split(". ")[0]
            raise CommandError(
                f"A package that {source.name!r} needs is missing: {need}."
            ) from error
        try:
            model = model.to(target)
        except (AssertionError, RuntimeError) as error:
            raise CommandError(
                f"The model cannot be put on the device {str(target)!r}: {first_line(error)}"
            ) from error
    return Checkpoint(source.name, model.eval(), processor)


def _torch_device(name: str | None) -> Any:
    import torch

    if name is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    try:
        return torch.device(name)
    except RuntimeError:
        raise CommandError(
            f"{name!r} is no device: choose for instance cpu or cuda:0.", exit_code=2
        ) from None
