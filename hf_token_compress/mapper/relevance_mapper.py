"""The mapper: a small network from what layer 0 sees to relevance."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, errors
from torch import Tensor, nn

from ..hub import first_line
from .batch import BatchIndex, MapperBatch
from .card import is_generated, mapper_card
from .config import MapperConfig
from .conv1d import Conv1dNetwork
from .files import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    fetch_folder,
    read_settings,
    read_weights,
    write_files,
)
from .grid import GridNetwork
from .inputs import MapperInput
from .question import QuestionNetwork

_NETWORKS: dict[str, type[nn.Module]] = {
    "conv1d": Conv1dNetwork,
    "grid": GridNetwork,
    "question": QuestionNetwork,
}

_FILES = [
    f"{folder}{name}"
    for folder in ("", "image/", "video/")
    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
]


class RelevanceMapper(nn.Module):
    """Predicts the relevance of visual tokens from what relates the instruction to them.

    A saved mapper is a config.json, a model.safetensors and a model card. Source:
    arXiv 2506.01097.

    Args:
        config: Its settings.

    Attributes:
        config: Its settings, with all options of the network.
        network: The network.
        source: Folder or Hub id of the saved mapper; None if it is in memory only.
        revision: Branch, tag or commit of `source` on the Hub; None for a folder or the main
            branch.

    Raises:
        TypeError: An option of the network has the wrong type.
        ValueError: An option of the network is unknown or out of range.
    """

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        # All options, so that a saved mapper does not depend on later defaults.
        options = _all_options(config)
        self.config = replace(config, network_options=options)
        model = config.base_model
        given = {"heads": model.heads, "inputs": config.inputs, "hidden_size": model.hidden_size}
        kind = _NETWORKS[config.network]
        known = inspect.signature(kind).parameters
        fixed = {name: value for name, value in given.items() if name in known}
        network = kind(**fixed, **options)
        # Whatever the default dtype is: loaders of models change it.
        self.network = network.float()
        self.source: str | None = None
        self.revision: str | None = None

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, inputs: Sequence[MapperInput]) -> list[Tensor]:
        """Logits of the visual tokens of each prompt, float32 [N]; N may differ."""
        batch = MapperBatch.of(inputs)
        return _cut(self.network(batch), batch.index)

    @torch.no_grad()
    def relevance(self, inputs: Sequence[MapperInput], temperature: float = 1.0) -> list[Tensor]:
        """Predicted relevance of the visual tokens of each prompt, float32 [N]; sums to 1."""
        batch = MapperBatch.of(inputs)
        return _cut(self.shares(batch, temperature), batch.index)

    @torch.no_grad()
    def shares(self, batch: MapperBatch, temperature: float = 1.0) -> Tensor:
        """Predicted relevance of the visual tokens of P prompts, float32 [P, N]; 0 on padding."""
        logits = self.network(batch).unsqueeze(1)  # [P, 1, N]
        if temperature != 1.0:
            logits = logits / temperature
        return batch.index.shares(logits).squeeze(1)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        subfolder: str = "",
    ) -> RelevanceMapper:
        """Load a mapper from a folder or from the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Cache of the Hub client.
            force_download: Download again what is in the cache.
            local_files_only: Use the cache only.
            token: Token for the Hub, for private mappers.
            subfolder: "image" or "video" if there is one mapper for each.

        Raises:
            MapperNotFoundError: The mapper does not exist, or the Hub cannot be reached or refuses.
            ValueError: A file is damaged or not of a mapper.
        """
        source = str(pretrained_model_name_or_path)
        folder = fetch_folder(
            source,
            cls.planned,
            parts=[subfolder],
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return cls.from_folder(folder / subfolder, source, revision)

    @classmethod
    def from_folder(cls, folder: Path, name: str, revision: str | None = None) -> RelevanceMapper:
        """Load a mapper from a folder on disk; errors as in `from_pretrained`.

        Args:
            folder: The folder.
            name: The mapper as the user calls it: this folder, a folder around it, or a Hub id.
            revision: Branch, tag or commit on the Hub.
        """
        mapper = cls.planned(folder, name)
        weights = read_weights(folder, name, mapper)
        mapper.to_empty(device="cpu").load_state_dict(weights)
        if Path(name).is_dir():
            mapper.source = str(folder.resolve())
        else:
            mapper.source, mapper.revision = name, revision
        return mapper.eval()

    @classmethod
    def planned(cls, folder: Path, name: str) -> RelevanceMapper:
        """The mapper of a config.json without its weights; arguments as in `from_folder`."""
        settings = read_settings(folder, name)
        try:
            with torch.device("meta"):  # shapes only, until they are known to fit the weights
                return cls(MapperConfig.from_dict(settings))
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            reason = first_line(error).rstrip(".")
            raise ValueError(f"{name!r} cannot be used as a mapper: {reason}.") from error

    def write_files(self, folder: Path, card: str | None = None) -> None:
        """Write config.json, model.safetensors and a model card if there is one."""
        write_files(folder, self.config.to_dict(), self.state_dict(), card)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and a model card into a folder.

        An existing README.md is only replaced if it is a generated card. If one file cannot be
        written, all stay as they were.

        Args:
            save_directory: The folder.
            push_to_hub: Upload the mapper too.
            repo_id: Hub id for the upload; by default the name of the folder.
            **options: Arguments of `push_to_hub`.

        Returns:
            Address of the commit with `push_to_hub=True`, else None.
        """
        folder = Path(save_directory)
        path = folder / CARD_FILE
        replaceable = not path.exists() or is_generated(path)
        card = str(mapper_card([(self.config, self.parameter_count)])) if replaceable else None
        self.write_files(folder, card)
        commit = self.push_to_hub(repo_id or folder.name, **options) if push_to_hub else None
        self.source, self.revision = str(folder.resolve()), None
        return commit

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the mapper and its model card, in place of the mappers of the repository.

        Args:
            repo_id: Hub id, "user/name".
            **options: `private`, `token`, `branch` (by default the main branch), `commit_message`,
                `delete_patterns` (of other files to delete), and those of `HfApi.upload_folder`,
                such as `create_pr`.

        Returns:
            Address of the commit.

        Raises:
            ConnectionError: The Hub cannot be reached.
            HfHubHTTPError: The Hub refuses.
        """
        return push_mappers({"": self}, repo_id, **options)


def push_mappers(
    mappers: Mapping[str, RelevanceMapper],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str = "Upload token mapper",
    delete_patterns: Sequence[str] | str = (),
    **options: Any,
) -> str:
    """Upload mappers and one card for all of them, as `RelevanceMapper.push_to_hub` does.

    The commit deletes the files of earlier mappers that are not written again, so that loading
    from the repository gives what was pushed. `mappers` has them by their folder in the repository;
    "" is the repository itself.
    """
    api = HfApi(token=token)
    try:
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as name:
            folder = Path(name)
            for subfolder, mapper in mappers.items():
                mapper.write_files(folder / subfolder)
            described = [(mapper.config, mapper.parameter_count) for mapper in mappers.values()]
            mapper_card(described, repo_id=full_id).save(folder / CARD_FILE)
            stale = [file for file in _FILES if not (folder / file).exists()]
            others = [delete_patterns] if isinstance(delete_patterns, str) else delete_patterns
            commit = api.upload_folder(
                repo_id=full_id,
                folder_path=folder,
                revision=branch,
                commit_message=commit_message,
                delete_patterns=[*stale, *others],
                **options,
            )
    except errors.HfHubHTTPError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise ConnectionError(
            f"The mapper cannot be pushed to {repo_id!r} because HF_HUB_OFFLINE is set: unset it."
        ) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of httpx or httpx2
        reason = first_line(error).rstrip(".")
        raise ConnectionError(
            f"The mapper cannot be pushed to {repo_id!r} because the Hub cannot be reached "
            f"({reason}): try again."
        ) from error
    for mapper in mappers.values():
        mapper.source, mapper.revision = commit.repo_url.repo_id, commit.pr_revision or branch
    return str(commit)


def _cut(values: Tensor, index: BatchIndex) -> list[Tensor]:
    """From [P, N] to [N] of each prompt, without padding."""
    return [own[:count] for own, count in zip(values, index.counts, strict=True)]


def _all_options(config: MapperConfig) -> dict[str, Any]:
    """The options of the network as JSON types, with defaults for those not given."""
    parameters = inspect.signature(_NETWORKS[config.network]).parameters
    fixed = ("heads", "inputs", "hidden_size")
    defaults = {name: item.default for name, item in parameters.items() if name not in fixed}
    unknown = sorted(set(config.network_options) - set(defaults))
    if unknown:
        raise ValueError(
            f"The mapper network {config.network} has no option {', '.join(unknown)}: choose from "
            f"{', '.join(sorted(defaults))}."
        )
    options = {**defaults, **config.network_options}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in options.items()
    }
