"""From a name to mappers: a folder, a Hub id, or a tiny model's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..prompt import Modality
from ..tiny import resolve_mapper
from .folders import CONFIG_FILE, fetch_folder
from .identity import ModelIdentity
from .relevance_mapper import RelevanceMapper
from .upload import push_mappers

_MODALITIES: tuple[Modality, ...] = ("image", "video")


class MapperSet:
    """The mappers of one model: one for images, one for videos, or both.

    Args:
        mappers: For each modality, its mapper.
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
        """The mapper for images, or for videos.

        Raises:
            ValueError: There is none.
        """
        if modality not in self.mappers:
            raise ValueError(
                f"The mapper {self.source!r} was trained for {' and '.join(self.mappers)}s, but "
                f"the prompt has {modality}s: name a mapper for {modality}s too (a folder with "
                "image/ and video/), or use scorer='attention'."
            )
        return self.mappers[modality]

    def check_model(self, model: ModelIdentity) -> None:
        """Raise unless the mappers belong to that model.

        Raises:
            ValueError: They were trained for another one.
        """
        for mapper in self.mappers.values():
            base = mapper.config.base_model
            difference = model.difference(base)
            if difference is not None:
                raise ValueError(
                    f"The mapper {self.source!r} was trained for {base.name!r}, but {model.name!r} "
                    f"has {difference}: name a mapper of this model, train one with "
                    "`hf-token-compress collect` and `train`, or use scorer='attention'."
                )

    @property
    def scoring_depth(self) -> int:
        """Decoder layers that run before the one whose attention the mappers read."""
        return max(mapper.config.scoring_depth for mapper in self.mappers.values())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write one mapper into the folder, or each into image/ and video/ where there are two.

        Raises:
            ValueError: There are two, and the folder itself is a mapper already.
        """
        if len(self.mappers) > 1 and (Path(folder) / CONFIG_FILE).is_file():
            raise ValueError(
                f"{str(folder)!r} has a {CONFIG_FILE} of its own, and with image/ and video/ there "
                "would be two mappers for one modality: save to another folder."
            )
        for modality, mapper in self.mappers.items():
            mapper.save_pretrained(Path(folder) / modality if len(self.mappers) > 1 else folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the mapper, or both and one card with one commit; returns the commit's address.

        They take the place of the mappers that the repository holds.

        Args:
            repo_id: Hub id, "user/name".
            **options: As of `RelevanceMapper.push_to_hub`.

        Raises:
            ConnectionError: The Hub cannot be reached.
            HfHubHTTPError: The Hub refuses.
        """
        alone = len(self.mappers) == 1
        places = {
            "" if alone else modality: mapper for modality, mapper in sorted(self.mappers.items())
        }
        commit = push_mappers(places, repo_id, **options)
        self.source = repo_id
        return commit


def load_mappers(name: str, revision: str | None = None) -> MapperSet:
    """Load the mappers in a folder or a repository on the Hub, or those of a tiny model.

    Args:
        name: Folder, Hub id, or "tiny-qwen2-vl" (or "tiny-qwen2-vl/conv1d").
        revision: Branch, tag or commit on the Hub.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached, or refuses.
        ValueError: A file is damaged, or is no mapper's, or there are two for one modality, or the
            two read different layers.
    """
    folder = fetch_folder(resolve_mapper(name), revision=revision)
    parts = [part for part in _MODALITIES if (folder / part / CONFIG_FILE).is_file()]
    mappers = {part: RelevanceMapper.from_folder(folder / part, name, revision) for part in parts}
    for part, mapper in mappers.items():
        if mapper.config.modality != part:
            raise ValueError(
                f"The mapper {name!r} holds a mapper for {mapper.config.modality}s in its folder "
                f"{part}/: move it to {mapper.config.modality}/."
            )
    if (folder / CONFIG_FILE).is_file() or not parts:
        mapper = RelevanceMapper.from_folder(folder, name, revision)
        modality = mapper.config.modality
        if modality in mappers:
            raise ValueError(
                f"The mapper {name!r} holds two mappers for {modality}s, one beside its folder "
                f"{modality}/ and one in it: remove the {CONFIG_FILE} of the one that is not to be "
                "used."
            )
        mappers[modality] = mapper
    if len({mapper.config.scoring_depth for mapper in mappers.values()}) > 1:
        raise ValueError(
            f"The mappers for images and videos in {name!r} read different layers: name one of "
            "their folders instead of both."
        )
    return MapperSet(mappers, name)
