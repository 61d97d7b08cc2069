"""Several collections of one model, joined into one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset

from ..mapper import ModelIdentity
from .shards import CollectedSample, ShardFolder

LABEL_OPTIONS = ("rule", "rule_options", "targets", "recursive")
"""Options of `collect` that define relevance."""

_SHARED_OPTIONS = ("modality", "scoring_depth", "instruction", *LABEL_OPTIONS)


class JoinedCollections(ConcatDataset[CollectedSample]):
    """The samples of several collections, one after the other.

    Args:
        collections: At least one; all of one model, collected with the same options.

    Raises:
        ValueError: There is no collection, one is named twice, or two differ in their model or in
            an option that changes what a mapper sees or learns.
    """

    datasets: list[ShardFolder]  # type: ignore[assignment]

    def __init__(self, collections: Sequence[ShardFolder]) -> None:
        if not collections:
            raise ValueError("There is no collection to train on: name at least one.")
        first, *others = collections
        for index, other in enumerate(others, start=1):
            if any(other.folder.samefile(earlier.folder) for earlier in collections[:index]):
                raise ValueError(
                    f"The collection {str(other.folder)!r} is named twice, which would put its "
                    "samples into both the training and the validation set: name it once."
                )
            difference = _difference(first, other)
            if difference is not None:
                raise ValueError(
                    f"The collections {str(first.folder)!r} and {str(other.folder)!r} cannot train "
                    f"one mapper, because {difference}: collect both from the same model with the "
                    "same options."
                )
        super().__init__(collections)

    @property
    def identity(self) -> ModelIdentity:
        """The model of all collections."""
        return self.datasets[0].identity

    @property
    def options(self) -> dict[str, Any]:
        """Options of the first collection; all collections share those that matter to a mapper."""
        options: dict[str, Any] = self.datasets[0].collection["options"]
        return options

    @property
    def data(self) -> Any:
        """The description of the data, or a list of them for several collections."""
        described = [collection.collection["data"] for collection in self.datasets]
        return described if len(described) > 1 else described[0]

    def describe(self) -> list[dict[str, Any]]:
        """Model, options and data of each collection, in JSON types."""
        return [collection.collection for collection in self.datasets]


def _difference(first: ShardFolder, other: ShardFolder) -> str | None:
    """Why two collections cannot be joined; None if they can."""
    models = first.identity.difference(other.identity)
    if models is not None:
        return f"their models differ: {models}"
    for name in _SHARED_OPTIONS:
        own, others = (item.collection["options"][name] for item in (first, other))
        if own != others:
            return f"{name} is {own!r} in the first and {others!r} in the second"
    return None
