"""Settings with the scorers that they name, built and checked for a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import TokenCompressionConfig
from ..mapper import MapperSet, RelevanceMapper
from ..scorers import Scorer, build_scorer
from .identity import identify
from .reading import check_depth

IN_MEMORY = "<in memory>"
"""Names a mapper that is saved nowhere."""

_REMEMBERED = 8


@dataclass(frozen=True)
class Setting:
    """What a call runs with.

    Attributes:
        base: The setting. If there is a `mapper`, that comes in place of its scorer.
        scorer: The scorer in use.
        mapper: Mapper in use that was handed over; where it is saved may change.
        of_samples: The setting of each sample, if they differ in their budgets.
    """

    base: TokenCompressionConfig
    scorer: Scorer
    mapper: RelevanceMapper | None = None
    of_samples: tuple[TokenCompressionConfig, ...] | None = None

    @property
    def config(self) -> TokenCompressionConfig:
        """The setting, with the name of the mapper in use."""
        if self.mapper is None:
            return self.base
        source = self.mapper.source or IN_MEMORY
        return self.base.with_scoring(mapper=source, mapper_revision=self.mapper.revision)

    def budgets(self, samples: int) -> tuple[TokenCompressionConfig, ...]:
        """The setting of each sample of a batch.

        Raises:
            ValueError: There are other ratios than samples.
        """
        if self.of_samples is None:
            return (self.base,) * samples
        if len(self.of_samples) != samples:
            raise ValueError(
                f"token_compression lists {len(self.of_samples)} retention ratios for a batch of "
                f"{samples}: pass one for each sample."
            )
        return self.of_samples


def is_unnamed(name: str | None) -> bool:
    """Whether a scorer or mapper is called by what it is, because it has no name."""
    return name is not None and name.startswith("<")


def build_setting(
    model: Any, config: TokenCompressionConfig, mappers: MapperSet | None = None
) -> Setting:
    """Build the scorer of a setting, with mappers that are loaded or those that it names.

    Raises:
        MapperNotFoundError: There is no such mapper.
        ValueError: There is no such scorer, or it does not fit the model.
    """
    for name in (config.scorer, config.mapper) if mappers is None else ():
        if is_unnamed(name):
            raise ValueError(
                f"The setting names {name}, which is only in memory: change the setting with "
                "model.token_compression.update, or save or register it and use that name."
            )
    options = dict(config.scorer_options)
    if config.scorer_name == "mapper":
        options.update(mapper=mappers or config.mapper, revision=config.mapper_revision)
    scorer = build_scorer(config.scorer_name, options)
    check_scorer(model, scorer)
    return Setting(config, scorer)


def check_scorer(model: Any, scorer: Scorer) -> None:
    """Check that a scorer fits a model.

    Raises:
        TypeError: It is not a scorer.
        ValueError: It does not fit.
    """
    if not isinstance(scorer, Scorer):
        raise TypeError(
            f"A scorer must be an instance of Scorer, not {scorer!r}: to choose one by name, use "
            "model.token_compression.update(scorer=…)."
        )
    scorer.check_model(lambda: identify(model))
    check_depth(model, scorer.scoring_depth)


class RememberedScorers:
    """The scorers that calls asked for last, so that none is built at every call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[tuple[tuple[Any, ...], Scorer]] = []

    def get(self, scoring: tuple[Any, ...], build: Callable[[], Scorer]) -> Scorer:
        """The scorer of `TokenCompressionConfig.scoring`, built if it is not remembered."""
        # Held while it builds: a thread that wants the same one waits for it.
        with self._lock:
            scorer = next((known for key, known in self._found if key == scoring), None)
            if scorer is None:
                scorer = build()
            others = [item for item in self._found if item[0] != scoring]
            self._found = [(scoring, scorer), *others][:_REMEMBERED]
            return scorer

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the model has other weights to check against, and locks cannot be copied.
        return type(self), ()
