"""Load the mappers of a model: from a folder, from the Hub, or those of a tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..prompt import MODALITIES, Modality
from ..tiny import resolve_mapper
from .files import CONFIG_FILE, fetch_folder, holds_mapper
from .identity import ModelIdentity
from .relevance_mapper import RelevanceMapper, push_mappers

IN_MODEL = "<this model>"
"""Names the mappers in the folder or repository of the model whose setting names them."""


class MapperSet:
    """The mappers of one model: one for images, one for videos, or both.

    Args:
        mappers: The mapper of each modality.
        source: Folder or Hub id, for messages.
    """

    def __init__(self, mappers: Mapping[Modality, RelevanceMapper], source: str) -> None:
        self.mappers = dict(mappers)
        self.source = source

    @classmethod
    def of(cls, mapper: RelevanceMapper) -> MapperSet:
        """A single mapper as a set."""
        return cls({mapper.config.modality: mapper}, mapper.source or "in memory")

    def for_modality(self, modality: Modality) -> RelevanceMapper:
        """The mapper of a modality; a ValueError if there is none."""
        if modality not in self.mappers:
            raise ValueError(
                f"The mapper {self.source!r} was trained for {' and '.join(self.mappers)}s, but "
                f"the prompt has {modality}s: name a mapper for {modality}s too (a folder with "
                "image/ and video/), or use scorer='gated_fusion', which needs none."
            )
        return self.mappers[modality]

    def check_model(self, model: ModelIdentity) -> None:
        """Raise a ValueError unless the mappers were trained for this model."""
        for mapper in self.mappers.values():
            base = mapper.config.base_model
            difference = model.difference(base)
            if difference is not None:
                raise ValueError(
                    f"The mapper {self.source!r} was trained for {base.name!r}, but {model.name!r} "
                    f"has {difference}: name a mapper of this model, train one with "
                    "`hf-token-compress collect` and `train`, or use "
                    "scorer='gated_fusion', which needs none."
                )

    @property
    def scoring_depth(self) -> int:
        """Decoder layers before the layer whose attention the mappers read."""
        return max(mapper.config.scoring_depth for mapper in self.mappers.values())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a single mapper into the folder, two into its folders image/ and video/.

        Raises:
            ValueError: There are two, and the folder holds another mapper.
        """
        if len(self.mappers) > 1 and (Path(folder) / CONFIG_FILE).is_file():
            raise ValueError(
                f"{str(folder)!r} holds a mapper already, and would hold two for one modality: "
                "save to another folder."
            )
        for modality, mapper in self.mappers.items():
            mapper.save_pretrained(Path(folder) / modality if len(self.mappers) > 1 else folder)

    def save_into_model(self, folder: str | Path) -> None:
        """Write the mappers into the folder of a model, in place of those that are there."""
        for modality in MODALITIES:
            part = Path(folder) / modality
            if modality in self.mappers:
                self.mappers[modality].write_files(part)
            elif holds_mapper(part, str(part)):
                (part / CONFIG_FILE).unlink()

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the mappers and one card, as `RelevanceMapper.push_to_hub` does."""
        alone = len(self.mappers) == 1
        folders = {"" if alone else part: mapper for part, mapper in sorted(self.mappers.items())}
        address = push_mappers(folders, repo_id, **options)
        self.source = repo_id
        return address


def load_mappers(
    name: str,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> MapperSet:
    """Load the mappers in a folder or a repository on the Hub, or those of a tiny model.

    The folder or repository may be that of a model that holds its mappers in image/ and video/.

    Args:
        name: Folder, Hub id, or "tiny-qwen2-vl" (or "tiny-qwen2-vl/conv1d").
        revision: Branch, tag or commit on the Hub.
        cache_dir: Cache of the Hub client.
        local_files_only: Use the cache only.
        token: Token for the Hub, for private mappers.

    Raises:
        MapperNotFoundError: The mapper does not exist, or the Hub cannot be reached or refuses.
        ValueError: A file is damaged or not of a mapper, there are two mappers for one modality, or
            they read different layers.
    """
    folder = fetch_folder(
        resolve_mapper(name),
        RelevanceMapper.planned,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    # The mappers in image/ and video/.
    found = [part for part in MODALITIES if (folder / part / CONFIG_FILE).is_file()]
    mappers = {part: RelevanceMapper.from_folder(folder / part, name, revision) for part in found}
    for part, mapper in mappers.items():
        if (modality := mapper.config.modality) != part:
            raise ValueError(
                f"The folder {part}/ of the mapper {name!r} holds a mapper for {modality}s: move "
                f"it to {modality}/."
            )
    # The mapper in the folder itself.
    if not mappers or holds_mapper(folder, name):
        mapper = RelevanceMapper.from_folder(folder, name, revision)
        modality = mapper.config.modality
        if modality in mappers:
            raise ValueError(
                f"The mapper {name!r} holds two mappers for {modality}s, one of them in its folder "
                f"{modality}/: remove the {CONFIG_FILE} of the mapper that should not be used."
            )
        mappers[modality] = mapper
    if len({mapper.config.scoring_depth for mapper in mappers.values()}) > 1:
        raise ValueError(
            f"The mappers for images and videos in {name!r} read different layers: name one of "
            "their folders instead of both."
        )
    return MapperSet(mappers, name)
