"""The state of a compressed model: its setting and the report of its last call."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..config import TokenCompressionConfig
from ..mapper import MapperSet, RelevanceMapper
from ..mapper.resolve import IN_MODEL
from ..scorers import Scorer, build_scorer
from ..scorers.mapper import MapperScorer
from .fast_path import FastPath
from .identity import identify
from .report import CompressionReport

if TYPE_CHECKING:
    from ..training.options import CollectOptions, TrainOptions

# Both belong to a thread or an asyncio task, so that requests to one model do not meet.
_DISABLED: ContextVar[tuple[TokenCompression, ...]] = ContextVar("disabled", default=())
_REPORTS: ContextVar[WeakKeyDictionary[TokenCompression, CompressionReport] | None] = ContextVar(
    "reports", default=None
)


class TokenCompression:
    """The compression of one model, found as `model.token_compression`.

    Attributes:
        config: The setting.
        fast_path: Layer 0 of the model, if it allows projecting only the instruction tokens.
        checked: Whether a prompt of a family that is not verified was checked.
    """

    def __init__(self, config: TokenCompressionConfig, mappers: MapperSet | None = None) -> None:
        self.config = config
        options = dict(config.scorer_options)
        if config.scorer_name == "mapper":
            options.update(mapper=mappers or config.mapper, revision=config.mapper_revision)
        self.scorer: Scorer = build_scorer(config.scorer_name, options)
        self.fast_path: FastPath | None = None
        self.checked = False
        self._mapper: RelevanceMapper | None = None
        self._model: weakref.ref[Any] | None = None

    def of_model(self, model: Any) -> TokenCompression:
        """This state, with a reference to the model that carries it."""
        # Weak, so that deleting the model frees its memory at once.
        self._model = weakref.ref(model)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_model": None}

    def use_mapper(self, mapper: RelevanceMapper) -> None:
        """Score with this mapper from now on.

        To save it with the model, save or push the mapper first.

        Raises:
            ValueError: The mapper belongs to another model.
        """
        scorer = MapperScorer(mapper)
        scorer.check_model(lambda: identify(self._carrier()))
        self.scorer, self._mapper = scorer, mapper

    def calibrate(
        self,
        samples: Iterable[Any],
        processor: Any,
        *,
        collect_options: CollectOptions | None = None,
        train_options: TrainOptions | None = None,
    ) -> RelevanceMapper:
        """Train a mapper on a few dozen prompts, in memory, and score with it from now on.

        Args:
            samples: (image or list of images, question) or (images, question, right answer) each;
                prompts with a right answer are only used if the model gives it.
            processor: The model's processor.
            collect_options: How to collect.
            train_options: How to train.

        Returns:
            The mapper, for `mapper.save_pretrained(folder)` or `mapper.push_to_hub(repo_id)`.

        Raises:
            ImportError: Accelerate is not installed.
            TypeError: A sample has another form.
            ValueError: There are fewer than two samples that the model can use.
        """
        # Imported late: training is built on top of compression.
        from ..training.calibration import calibrate

        return calibrate(
            self._carrier(),
            processor,
            samples,
            collect_options=collect_options,
            train_options=train_options,
        )

    @property
    def saved_config(self) -> TokenCompressionConfig:
        """The setting to save with the model; it names the mapper in use if that was saved."""
        if self._mapper is not None and self._mapper.source is None:
            warnings.warn(
                "The mapper in use is in memory only and is not saved with the model: save the "
                "model with save_mapper=True, or call mapper.save_pretrained(folder) or "
                "mapper.push_to_hub(repo_id) first.",
                UserWarning,
                stacklevel=3,
            )
            return self.config
        config = self.config
        if self._mapper is not None:
            config = self._naming(self._mapper.source, self._mapper.revision)
        if config.mapper is None or not Path(config.mapper).is_dir():
            return config
        # Absolute, so that it is found from any working directory.
        folder = str(Path(config.mapper).resolve())
        warnings.warn(
            f"The setting saved with the model names the mapper in {folder!r}, a folder that other "
            "machines do not have: save with save_mapper=True to write the mapper into the model's "
            "folder, or push the mapper to the Hub and name it by its id.",
            UserWarning,
            stacklevel=3,
        )
        return replace(config, mapper=folder)

    def save_mapper(self, folder: str | Path) -> TokenCompressionConfig:
        """Write the mapper in use into the folder of the model.

        Returns:
            The setting to save with the model.

        Raises:
            ValueError: No mapper is in use.
        """
        if not isinstance(self.scorer, MapperScorer):
            raise ValueError(
                f"save_mapper=True needs a mapper, but the scorer is {self.config.scorer_name!r}: "
                "leave save_mapper out."
            )
        self.scorer.mappers.save_into_model(folder)
        return self._naming(IN_MODEL, None)

    def _naming(self, mapper: str | None, revision: str | None) -> TokenCompressionConfig:
        """The setting with another mapper."""
        return replace(
            self.config, scorer=None, scorer_options={}, mapper=mapper, mapper_revision=revision
        )

    def _carrier(self) -> Any:
        model = None if self._model is None else self._model()
        if model is None:
            raise ValueError(
                "This setting does not belong to a model: use model.token_compression of a "
                "compressed model."
            )
        return model

    @property
    def last(self) -> CompressionReport | None:
        """Report of the last call with images or videos in this thread or asyncio task."""
        reports = _REPORTS.get()
        return None if reports is None else reports.get(self)

    @last.setter
    def last(self, report: CompressionReport | None) -> None:
        # A new mapping for every change: contexts that were copied from this one hold the old.
        reports = WeakKeyDictionary(_REPORTS.get() or {})
        if report is None:
            reports.pop(self, None)
        else:
            reports[self] = report
        _REPORTS.set(reports)

    @property
    def enabled(self) -> bool:
        """False inside `disabled()`."""
        return self not in _DISABLED.get()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the stock model inside the `with` block; may be nested.

        Other threads and asyncio tasks stay compressed.
        """
        token = _DISABLED.set((*_DISABLED.get(), self))
        try:
            yield
        finally:
            _DISABLED.reset(token)

    def __repr__(self) -> str:
        status = "" if self.enabled else ", disabled"
        return f"TokenCompression({self.config}{status})"
