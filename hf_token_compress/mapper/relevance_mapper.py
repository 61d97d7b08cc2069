"""The mapper: a small network from layer-0 attention to relevance, and its file format."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .card import is_untouched, mapper_card
from .config import MapperConfig
from .conv1d import Conv1dNetwork
from .folders import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    MapperNotFoundError,
    fetch_folder,
    read_json,
)
from .grid import GridNetwork
from .inputs import MapperInput
from .upload import push_mappers

_DIGEST_KEY = "weights_sha256"


class RelevanceMapper(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="hf_token_compress",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2506.01097",
):
    """Maps what the instruction looks at in an early layer to the relevance of visual tokens.

    On disk and on the Hub it is a config.json, a model.safetensors and a model card.

    Args:
        config: What it is.

    Raises:
        TypeError: An option of the network has the wrong type.
        ValueError: The network takes no such option, or not that value.
    """

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        # All options in full, so that a saved mapper outlives a change of their defaults.
        self.config = replace(config, network_options=_all_options(config))
        self.network = _build_network(self.config)
        self.source: str | None = None
        """Folder or Hub id where it lies; None while it is in memory only."""
        self.revision: str | None = None
        """Branch, tag or commit of `source` on the Hub; None for a folder and the main branch."""

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, inputs: Sequence[MapperInput]) -> list[Tensor]:
        """A logit per visual token of each prompt: float32 [N] each; any N, batches ragged."""
        logits: list[Tensor] = self.network(inputs)
        return logits

    @torch.no_grad()
    def relevance(self, inputs: Sequence[MapperInput]) -> list[Tensor]:
        """Predicted share of the relevance of each visual token: float32 [N] each, sums to 1."""
        return [logits.softmax(dim=0) for logits in self(inputs)]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        subfolder: str = "",
        map_location: str = "cpu",
    ) -> RelevanceMapper:
        """Load a mapper from a folder or from the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Cache of the Hub client.
            force_download: Fetch again what is in the cache.
            local_files_only: Do not ask the Hub.
            token: Of the Hub, for private mappers.
            subfolder: "image" or "video" in a folder that holds one mapper for each.
            map_location: Device for the weights.

        Raises:
            MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
            ValueError: A file is damaged, or is no mapper's.
        """
        source = str(pretrained_model_name_or_path)
        folder = fetch_folder(
            source,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        mapper = cls.from_folder(folder / subfolder, source, revision)
        return mapper.to(map_location)

    @classmethod
    def from_folder(cls, folder: Path, name: str, revision: str | None = None) -> RelevanceMapper:
        """Load a mapper from a folder.

        Args:
            folder: What `save_pretrained` wrote.
            name: What the user calls it: that folder, one around it, or a Hub id.
            revision: Branch, tag or commit on the Hub.

        Raises:
            MapperNotFoundError: A file is missing.
            ValueError: A file is damaged, or is no mapper's.
        """
        # The mixin's own way would fall back to a pickle, take weights that fit in part, and print.
        settings = read_json(folder / CONFIG_FILE, name)
        try:
            mapper = cls(MapperConfig.from_dict(settings))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name!r} cannot be used as a mapper: {error}") from error
        weights = _read_weights(folder / WEIGHTS_FILE, settings.get(_DIGEST_KEY), mapper, name)
        mapper.load_state_dict(weights)
        if Path(name).is_dir():
            mapper.lies_in(folder)
        else:
            mapper.lies_at(name, revision)
        return mapper.eval()

    def lies_in(self, folder: str | Path) -> None:
        """Take a folder for its `source`, by a name that holds in every working directory."""
        self.source, self.revision = str(Path(folder).resolve()), None

    def lies_at(self, repo_id: str, revision: str | None) -> None:
        """Take a repository on the Hub (or a tiny model's name) for its `source`."""
        self.source, self.revision = repo_id, revision

    def write_files(self, folder: Path) -> None:
        """Write config.json and model.safetensors, and no card; the mapper's `source` stays."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        path = folder / WEIGHTS_FILE
        save_file(weights, path, metadata={"format": "pt"})
        settings = {**self.config.to_dict(), _DIGEST_KEY: _digest(path)}
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")

    def _save_pretrained(self, save_directory: Path) -> None:
        self.write_files(save_directory)
        card = save_directory / CARD_FILE
        if card.is_file() and is_untouched(card):
            # The mixin writes a card only where there is none, and this one describes what was here
            # before.
            card.unlink()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write config.json, model.safetensors and a model card into a folder.

        A README.md that is there stays, unless it is the card of an earlier save as it was written.

        Args:
            save_directory: The folder.
            **options: Those of `PyTorchModelHubMixin`.

        Returns:
            Address of the commit with `push_to_hub=True`, else None.
        """
        commit: str | None = super().save_pretrained(save_directory, **options)
        self.lies_in(save_directory)
        return commit

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload it, with its model card.

        It takes the place of the mappers that the repository holds, in image/ and video/ too.

        Args:
            repo_id: Hub id, "user/name".
            **options: `private`, `token`, `branch`, `commit_message`, `delete_patterns`, and those
                of `HfApi.upload_folder`, such as `create_pr`.

        Returns:
            Address of the commit.

        Raises:
            ConnectionError: The Hub cannot be reached.
            HfHubHTTPError: The Hub refuses.
        """
        for name in ("config", "model_card_kwargs"):
            # `save_pretrained(…, push_to_hub=True)` of the mixin hands these on.
            options.pop(name, None)
        return push_mappers({"": self}, repo_id, **options)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` writes beside the weights."""
        return mapper_card([(self.config, self.parameter_count)], **kwargs)


_NETWORKS: dict[str, type[nn.Module]] = {"conv1d": Conv1dNetwork, "grid": GridNetwork}


def _all_options(config: MapperConfig) -> dict[str, Any]:
    """The network's options as JSON types, those that are not given at their defaults."""
    parameters = inspect.signature(_NETWORKS[config.network]).parameters.values()
    defaults = {item.name: item.default for item in parameters if item.default is not item.empty}
    options = {**defaults, **config.network_options}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in options.items()
    }


def _build_network(config: MapperConfig) -> nn.Module:
    network = _NETWORKS[config.network]
    known = set(inspect.signature(network).parameters) - {"heads"}
    unknown = sorted(set(config.network_options) - known)
    if unknown:
        raise ValueError(
            f"The mapper network {config.network} takes no option {', '.join(unknown)}: its "
            f"options are {', '.join(sorted(known))}."
        )
    return network(heads=config.base_model.heads, **config.network_options)


def _read_weights(
    path: Path, digest: str | None, mapper: RelevanceMapper, name: str
) -> dict[str, Tensor]:
    if not path.is_file():
        raise MapperNotFoundError(
            f"The mapper {name!r} has no {path.name}: fetch or save it again."
        )
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} of the mapper {name!r} is damaged ({error}): fetch or save it again."
        ) from error
    if digest is not None and _digest(path) != digest:
        raise ValueError(
            f"{path.name} of the mapper {name!r} is not the file that was saved with its "
            "config.json, as their SHA-256 differ: fetch or save both again."
        )
    expected = {key: value.shape for key, value in mapper.state_dict().items()}
    if {key: value.shape for key, value in weights.items()} != expected:
        raise ValueError(
            f"{path.name} of the mapper {name!r} does not hold the weights that its config.json "
            "describes: fetch or save both again."
        )
    return weights


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
