"""What selection rules share that take importance from another scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from typing_extensions import override

from ..checks import check_type
from ..prompt import MultimodalPrompt
from .base import Scorer
from .registry import build_scorer

if TYPE_CHECKING:
    from ..mapper import ModelIdentity


class ImportanceScorer(Scorer):
    """The scores of another scorer, for a `select` that uses them.

    Args:
        importance: Name of the other scorer.
        importance_options: Its keyword arguments.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: There is no such scorer, it does not take one of the options, or only the order
            of its scores means anything.
    """

    def __init__(
        self, importance: str = "attention", importance_options: Mapping[str, Any] | None = None
    ) -> None:
        check_type("importance", importance, str)
        options = {} if importance_options is None else importance_options
        check_type("importance_options", options, Mapping)
        self.importance = build_scorer(importance, options)
        if self.importance.ranks_only:
            raise ValueError(
                f"importance cannot be {importance!r}, because only the order of its scores means "
                "anything: choose another scorer, such as 'attention'."
            )
        self.needs = self.importance.needs
        self.scoring_depth = self.importance.scoring_depth

    @override
    def query_mask(self, prompt: MultimodalPrompt) -> Tensor:
        return self.importance.query_mask(prompt)

    @override
    def check_model(self, identify: Callable[[], ModelIdentity]) -> None:
        self.importance.check_model(identify)

    @override
    def score(self, prompt: MultimodalPrompt, *args: Any, **needed: Any) -> Tensor:
        return self.importance.score(prompt, **needed)
