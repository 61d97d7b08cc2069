"""Several collections of one model, joined into one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset

from ..mapper.inputs import INPUTS
from .shards import CollectedSample, ShardFolder

LABEL_OPTIONS = ("rule", "rule_options", "targets", "recursive")
"""Options of `collect` that define relevance."""

_SHARED_OPTIONS = ("modality", "scoring_depth", "instruction", *LABEL_OPTIONS)


class JoinedCollections(ConcatDataset[CollectedSample]):
    """The samples of several collections, one after the other.

    Args:
        collections: At least one; all of one model, collected with the same options.

    Attributes:
        identity: The model of all collections.
        options: Options of the first collection; all collections share those that matter to a
            mapper.
        inputs: Groups of input channels that all collections hold.
        described: Model, options and data of each collection, in JSON types.

    Raises:
        ValueError: There is no collection, one is named twice, or two differ in their model or in
            an option that changes what a mapper sees or learns.
    """

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
        self.identity = first.identity
        self.options: dict[str, Any] = first.collection["options"]
        self.inputs = tuple(
            name for name in INPUTS if all(name in item.inputs for item in collections)
        )
        self.described = [collection.collection for collection in collections]

    def check_inputs(self, wanted: Sequence[str]) -> None:
        """Raise a ValueError unless all collections hold these groups of input channels."""
        for collection in self.datasets:
            assert isinstance(collection, ShardFolder)
            if missing := [name for name in wanted if name not in collection.inputs]:
                raise ValueError(
                    f"The collection {str(collection.folder)!r} does not hold "
                    f"{' and '.join(missing)}, because an earlier version collected it: collect it "
                    f"again, or train with the inputs {', '.join(self.inputs)}."
                )


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
