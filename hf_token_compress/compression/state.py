"""The state of a compressed model: its setting and the report of its last call."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from ..config import SCORING, TokenCompressionConfig
from ..mapper import RelevanceMapper
from ..mapper.resolve import IN_MODEL
from ..notices import warn
from ..scorers import Scorer
from ..scorers.mapper import MapperScorer
from .fast_path import FastPath
from .inputs import batch_size
from .report import CompressionReport
from .setting import (
    IN_MEMORY,
    RememberedScorers,
    Setting,
    build_setting,
    check_names,
    check_scorer,
    is_unnamed,
)
from .totals import CompressionTotals, recording

if TYPE_CHECKING:
    from ..training.options import CollectOptions, TrainOptions

# Both belong to a thread or an asyncio task, so that requests to one model do not meet.
_DISABLED: ContextVar[tuple[TokenCompression, ...]] = ContextVar("disabled", default=())
_REPORTS: ContextVar[WeakKeyDictionary[TokenCompression, CompressionReport] | None] = ContextVar(
    "reports", default=None
)
# A scorer may be assigned; other settings would only hang on the object.
_NOT_ASSIGNED = {"config", *(item.name for item in fields(TokenCompressionConfig))} - {"scorer"}


class TokenCompression:
    """The compression of one model, found as `model.token_compression`.

    Attributes:
        fast_path: Layer 0 of the model, if it allows projecting only the instruction tokens.
        checked: Policies of position ids with which a prompt of a family that is not verified was
            checked.
    """

    def __init__(self, setting: Setting, fast_path: FastPath | None) -> None:
        # Replaced as a whole, so that calls in other threads see the old one or the new one.
        self._setting = setting
        self.fast_path = fast_path
        self.checked: set[str] = set()
        self._remembered = RememberedScorers()
        self._model: weakref.ref[Any] | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in _NOT_ASSIGNED:
            raise AttributeError(
                f"token_compression.{name} cannot be assigned: change settings with "
                "model.token_compression.update(retention_ratio=0.25), or replace the whole "
                "setting with compress(model, config)."
            )
        super().__setattr__(name, value)

    @property
    def config(self) -> TokenCompressionConfig:
        """The setting; it names the scorer and the mapper in use."""
        return self._setting.config

    @property
    def scorer(self) -> Scorer:
        """The scorer in use. Another one may be assigned; it is not saved with the model."""
        return self._setting.scorer

    @scorer.setter
    def scorer(self, scorer: Scorer) -> None:
        check_scorer(self._carrier(), scorer)
        config = self.config.with_scoring(scorer=f"<{type(scorer).__name__}>")
        self._setting = Setting(config, scorer)

    def update(self, **changes: Any) -> None:
        """Change settings of the model, from the next call on.

        Another scorer or mapper starts from its own defaults, not from the options of this one. A
        mapper that is named is read again.

        Args:
            **changes: Options of `TokenCompressionConfig`, such as `retention_ratio=0.25`.

        Raises:
            MapperNotFoundError: There is no such mapper, or the Hub cannot be reached or refuses.
            TypeError: An option has the wrong type.
            ValueError: An option is unknown or outside its range, or the scorer or mapper does not
                fit the model. The setting is then as before.
        """
        model, own = self._carrier(), self._setting
        config = own.config.changed(changes)
        if changes.keys().isdisjoint(SCORING):
            setting = replace(own, base=config)
        else:
            # A mapper is read again: its folder may hold another one by now.
            setting = build_setting(model, config)
        self.use_setting(model, setting)

    def use_setting(self, model: Any, setting: Setting) -> None:
        """Run the model that carries this state with another setting, from the next call on."""
        self.fast_path = FastPath.find(model, model.family)
        self._setting = setting

    def check_call(self, value: Any, inputs: Mapping[str, Any]) -> None:
        """Check what a call passes as `token_compression`, whether or not its inputs need it.

        Raises:
            TypeError, ValueError: As in `update`, or there are other ratios than samples.
        """
        if value is not None:
            _check_call(self.config, value, inputs)

    def for_call(self, model: Any, value: Any) -> Setting:
        """The setting of a call that passes `value` as `token_compression`; the model's for None.

        Raises:
            MapperNotFoundError, TypeError, ValueError: As in `update`.
        """
        return self._setting if value is None else self._built_for_call(model, value)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _built_for_call(self, model: Any, value: Any) -> Setting:
        own = self._setting
        config, of_samples = _of_call(own.config, value)
        if config.scoring == own.config.scoring:
            return replace(own, base=config, of_samples=of_samples)
        # A scorer that was asked for before is not built again.
        scorer = self._remembered.get(config.scoring, lambda: build_setting(model, config).scorer)
        return Setting(config, scorer, of_samples=of_samples)

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
            TypeError: It is not a loaded mapper.
            ValueError: The mapper belongs to another model.
        """
        if not isinstance(mapper, RelevanceMapper):
            raise TypeError(
                f"use_mapper takes a loaded RelevanceMapper, not {type(mapper).__name__}: for a "
                "folder or Hub id, use model.token_compression.update(mapper=…)."
            )
        scorer = MapperScorer(mapper)
        check_scorer(self._carrier(), scorer)
        self._setting = Setting(self.config.with_scoring(mapper=IN_MEMORY), scorer, mapper)

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
        """The setting to save with the model; a scorer or mapper without a name is left out."""
        config = self.config
        if is_unnamed(config.mapper):
            warn(
                "The mapper in use is in memory only and is not saved with the model: save the "
                "model with save_mapper=True, or call mapper.save_pretrained(folder) or "
                "mapper.push_to_hub(repo_id) first."
            )
            return config.with_scoring()
        if is_unnamed(config.scorer):
            warn(
                f"The scorer in use, {config.scorer}, was assigned and is not saved with the "
                "model: give it a name with register_scorer, and set that."
            )
            return config.with_scoring()
        if config.mapper is None or not Path(config.mapper).is_dir():
            return config
        # Absolute, so that it is found from any working directory.
        folder = str(Path(config.mapper).resolve())
        warn(
            f"The setting saved with the model names the mapper in {folder!r}, a folder that other "
            "machines do not have: save with save_mapper=True to write the mapper into the model's "
            "folder, or push the mapper to the Hub and name it by its id."
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
        return self.config.with_scoring(mapper=IN_MODEL)

    def _carrier(self) -> Any:
        model = None if self._model is None else self._model()
        if getattr(model, "_compression", None) is not self:
            raise ValueError(
                "This setting does not belong to a model: use model.token_compression of a "
                "compressed model."
            )
        return model

    @property
    def last(self) -> CompressionReport | None:
        """Report of the last call in this thread or asyncio task; None if it compressed nothing.

        Decoding steps and calls with the result of `prepare_inputs` leave it as it is.
        """
        reports = _REPORTS.get()
        return None if reports is None else reports.get(self)

    @last.setter
    def last(self, report: CompressionReport | None) -> None:
        if report is None and self.last is None:
            return
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

    def record(self) -> AbstractContextManager[CompressionTotals]:
        """Add up the compressed calls inside the `with` block; may be nested, all blocks count.

        Calls of asyncio tasks that are started inside count too, until the tasks end. Other threads
        count if they run in `contextvars.copy_context()`.
        """
        return recording(self)

    def __repr__(self) -> str:
        status = "" if self.enabled else ", disabled"
        return f"TokenCompression({self.config}{status})"


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _check_call(own: TokenCompressionConfig, value: Any, inputs: Mapping[str, Any]) -> None:
    _, of_samples = _of_call(own, value)
    # What is only in memory has the same name in every model.
    if value is not own and isinstance(value, Mapping):
        check_names(value.get("scorer"), value.get("mapper"))
    elif isinstance(value, str):
        check_names(None, value)
    samples = batch_size(inputs)
    if of_samples is not None and samples not in (None, len(of_samples)):
        raise ValueError(
            f"token_compression lists {len(of_samples)} retention ratios for a batch of {samples}: "
            "pass one for each sample."
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _of_call(
    own: TokenCompressionConfig, value: Any
) -> tuple[TokenCompressionConfig, tuple[TokenCompressionConfig, ...] | None]:
    """The setting of a call, and that of each sample if they differ, from that of the model."""
    if isinstance(value, list | tuple):
        value = {"retention_ratio": value}
    ratios = value.get("retention_ratio") if isinstance(value, Mapping) else None
    if not isinstance(ratios, list | tuple):
        return own.changed(value), None
    config = own.changed({name: value[name] for name in value if name != "retention_ratio"})
    return config, tuple(replace(config, retention_ratio=ratio) for ratio in ratios)
