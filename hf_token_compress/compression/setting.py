"""Settings with the scorers that they name, built and checked for a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import TokenCompressionConfig
from ..mapper import MapperSet, RelevanceMapper
from ..scorers import Scorer, available_scorers, build_scorer
from .identity import identify
from .reading import check_depth

IN_MEMORY = "<in memory>"
"""Names a mapper that is saved nowhere."""

BARE_RATIO = "retention_ratio is no argument of its own: pass token_compression=<ratio> instead."
"""Where it is given by its name, which Transformers would ignore or not know."""

_REMEMBERED = 8


@dataclass(frozen=True)
class Setting:
    """What a call runs with.

    Attributes:
        base: The setting. A `mapper` that was saved since is still called `IN_MEMORY` here.
        scorer: The scorer in use.
        mapper: Mapper in use that was handed over; where it is saved may change.
        of_samples: The setting of each sample, if they differ in their budgets.
    """

    base: TokenCompressionConfig
    scorer: Scorer
    mapper: RelevanceMapper | None = None
    of_samples: tuple[TokenCompressionConfig, ...] | None = None

    def __post_init__(self) -> None:
        check_selection(self.base, self.scorer)

    @property
    def config(self) -> TokenCompressionConfig:
        """The setting, with the name of the mapper in use."""
        if self.mapper is None or self.mapper.source is None:
            return self.base
        revision = self.mapper.revision
        return self.base.with_scoring(mapper=self.mapper.source, mapper_revision=revision)

    def budgets(self, samples: int) -> tuple[TokenCompressionConfig, ...]:
        """The setting of each sample of a batch."""
        return (self.base,) * samples if self.of_samples is None else self.of_samples


def is_unnamed(name: str | None) -> bool:
    """Whether a scorer or mapper is called by what it is, because it has no name."""
    return name is not None and name.startswith("<")


def check_names(scorer: str | None, mapper: str | None) -> None:
    """Check that a scorer and a mapper can be found by these names.

    Raises:
        ValueError: One is only in memory, or the mapper is called as a scorer.
    """
    for name in filter(is_unnamed, (scorer, mapper)):
        raise ValueError(
            f"The setting names {name}, which is only in memory: pass only the settings that "
            "change, to the call or to model.token_compression.update, or save or register it and "
            "use that name."
        )
    if mapper in available_scorers() and not Path(str(mapper)).is_dir():
        raise ValueError(
            f"{mapper!r} is a scorer and no mapper: pass token_compression="
            f"{{'scorer': {mapper!r}}}."
        )


def build_setting(
    model: Any, config: TokenCompressionConfig, mappers: MapperSet | None = None
) -> Setting:
    """Build the scorer of a setting, with mappers that are loaded or those that it names.

    Raises:
        MapperNotFoundError: There is no such mapper.
        ValueError: There is no such scorer, or it does not fit the model.
    """
    if mappers is None:
        check_names(config.scorer, config.mapper)
    scorer = scorer_of(config, mappers)
    check_scorer(model, scorer)
    return Setting(config, scorer)


def scorer_of(config: TokenCompressionConfig, mappers: MapperSet | None = None) -> Scorer:
    """The scorer of a setting, with mappers that are loaded or those that it names.

    Raises:
        MapperNotFoundError: There is no such mapper.
        ValueError: There is no such scorer, or it does not take one of the options.
    """
    options = dict(config.scorer_options)
    if config.scorer_name == "mapper":
        options.update(mapper=mappers or config.mapper, revision=config.mapper_revision)
    return build_scorer(config.scorer_name, options)


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


def check_selection(config: TokenCompressionConfig, scorer: Scorer) -> None:
    """Check that a setting chooses tokens in a way that the scorer allows.

    Raises:
        ValueError: It does not.
    """
    if config.top_p is not None:
        asked, otherwise = "top_p", "leave it out"
    elif config.selection_name != "top_k":
        asked, otherwise = f"selection={config.selection_name!r}", "use selection='top_k'"
    else:
        return
    reason = None
    if scorer.selects:
        reason = "it chooses the tokens itself"
    elif scorer.ranks_only:
        reason = "only the order of its scores means anything"
    if reason is not None:
        raise ValueError(
            f"Scorer {config.scorer_name!r} cannot be used with {asked}, because {reason}: "
            f"{otherwise}, or choose another scorer."
        )


@dataclass(eq=False)
class _Slot:
    """A scorer, once it is built, and the lock of the thread that builds it."""

    scoring: tuple[Any, ...]
    scorer: Scorer | None = None
    building: threading.Lock = field(default_factory=threading.Lock)


class RememberedScorers:
    """The scorers that calls asked for last, so that none is built at every call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []

    def get(self, scoring: tuple[Any, ...], build: Callable[[], Scorer]) -> Scorer:
        """The scorer of `TokenCompressionConfig.scoring`, built if it is not remembered."""
        with self._lock:
            slot = next((known for known in self._slots if known.scoring == scoring), None)
            if slot is None:
                slot = _Slot(scoring)
                self._slots.append(slot)
        try:
            # It may be downloaded: only threads that want the same one wait for it.
            with slot.building:
                if slot.scorer is None:
                    slot.scorer = build()
                return slot.scorer
        finally:
            with self._lock:
                others = [known for known in self._slots if known.scoring != scoring]
                first = [] if slot.scorer is None else [slot]
                self._slots = [*first, *others][:_REMEMBERED]

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the model has other weights to check against, and locks cannot be copied.
        return type(self), ()
